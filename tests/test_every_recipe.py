"""Every recipe that inlay ships, run through the Python API on a tiny model: it trains, measures, and leaves all files.

A recipe on the embedded base gets a tiny one in its place; one on the hub gets its repositories, by name, from a hub
cache that the test builds. The size is replaced; everything else is the recipe's own. Some run in every test run, all
of them in the slow one.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import hub_cache
import pytest

import inlay
from inlay.tuner import preflight
from inlay.tuner.recipe import shipped
from inlay.tuner.setting import survey

FAST = (
    "quickstart",
    "classification-embedded-lora",
    "summarization-embedded-prefix",
    "dialogue-qwen2-5-0-5b-lora",
    "classification-gpt2-bottleneck",
    "text_to_text-t5-small-prefix",
)
SMALL = (
    "train.max_steps=1",
    "train.epochs=null",
    "train.micro_batch_size=2",
    "train.gradient_accumulation_steps=1",
    "task.truncate=true",
    "task.data.max_rows.train=40",
    "task.data.max_rows.validation=2",
    "task.data.max_rows.test=3",
    "eval.decoding.max_new_tokens=4",
)
FIELDS = {
    "": ("status", "recipe_hash", "seed", "created", "seconds", "schema_version"),
    "base": ("model", "revision", "sha256", "quantization", "parameters", "bytes"),
    "adapter": ("method", "trainable_parameters", "share", "bytes"),
    "data": ("sha256", "rows", "tokens"),
    "train": ("steps", "tokens", "seconds", "tokens_per_second", "peak_bytes"),
    "metrics": ("tuned", "base", "change"),
    "environment": ("versions", "device", "git"),
}
RECIPES = [found.name for found in shipped()]
ON_THE_HUB = [name for name in RECIPES if inlay.load_recipe(name).base.model != "embedded"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A hub cache with every repository that the recipes name."""
    folder = tmp_path_factory.mktemp("hub")
    hub_cache.build(folder)
    return folder


@pytest.fixture
def hub(cache, monkeypatch):
    """The client of the hub looks into that cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_a_recipe_on_the_hub_names_what_is_there(name, hub):
    """Its columns, splits, labels and prompt fit the data; its method fits the base; nothing fails in the preflight."""
    setting = survey(inlay.load_recipe(name, ["task.data.max_rows.test=30"]))
    assert setting.files.revision == hub_cache.COMMIT == setting.data.record.revision
    failed = [f for f in preflight.findings(setting) if f.outcome == "FAIL"]
    assert failed == []
    chat = hub_cache.MODELS[setting.recipe.base.model][1]
    assert setting.renderer.prompt_format == ("chat template" if chat else "plain")
    text = shipped_text(name)
    assert text.startswith("# ")
    assert f"inlay run {name}" in text
    assert "\n# Needs:" in text


def shipped_text(name: str) -> str:
    return next(found.path for found in shipped() if found.name == name).read_text(encoding="utf-8")


def test_the_recipes_that_run_in_every_test_run_are_shipped():
    assert set(FAST) <= set(RECIPES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in RECIPES]
)
def test_a_shipped_recipe_runs_and_leaves_all_files(name, tiny_models, hub, tmp_path):
    own = inlay.load_recipe(name)
    base = [f"base.model={tiny_models('llama')}"] if own.base.model == "embedded" else []
    overrides = [*SMALL, *base]
    run = inlay.run(name, overrides=overrides, output=tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    for block, fields in FIELDS.items():
        part = record[block] if block else record
        if part is None:
            assert (block, own.adapter.method) == ("train", "none")
        else:
            assert set(fields) <= set(part), block
    assert record["status"] == "complete"
    assert record["adapter"]["method"] == own.adapter.method
    check_numbers(record)
    check_predictions(run, record)
    written = inlay.load_recipe(run / "recipe.yaml", base)
    assert written == inlay.load_recipe(name, overrides)
    page = (run / "report.html").read_text()
    assert record["name"] in page
    if record["train"] is not None:
        assert [json.loads(line)["step"] for line in (run / "train.jsonl").read_text().splitlines()] == [1]
    assert (run / "adapter").is_dir()


def check_numbers(record: dict) -> None:
    """What is counted is there, and no score is a stand-in."""
    assert record["data"]["rows"]["train"] == 40
    assert record["data"]["rows"]["test"] == 3
    assert record["base"]["bytes"] > 0
    assert len(record["base"]["sha256"]) == 64
    train = record["train"]
    if train is not None:
        assert (train["steps"], train["rows_seen"]) == (1, 2)
        assert train["tokens"] >= train["trained_tokens"] > 0
        assert train["tokens_per_second"] == pytest.approx(train["tokens"] / train["seconds"])
        assert train["peak_bytes"] > record["base"]["bytes"]
    models = [record["metrics"]["base"], *([record["metrics"]["tuned"]] if train else [])]
    for scores in models:
        assert scores
        for name, score in scores.items():
            assert set(score) >= {"value", "ci95", "unit", "higher_is_better", "signature"}, name
            assert math.isfinite(score["value"])
            assert score["ci95"] is None or score["ci95"][0] <= score["value"] <= score["ci95"][1]
            assert score["signature"]
    assert models[0].keys() == models[-1].keys()


def check_predictions(run: Path, record: dict) -> None:
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == record["eval"]["rows"] == 3
    assert len({line["id"] for line in lines}) == 3
    for line in lines:
        assert set(line) >= {"id", "prompt", "references", "prediction", "base_prediction"}
        assert line["prompt"] or record["task"] == "language_modeling"
        assert all(line["references"])
        if record["train"] is None:
            assert line["prediction"] == line["base_prediction"]
