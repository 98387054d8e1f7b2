"""Every shipped comparison: its rows fit its base and data, and the embedded one runs from end to end."""

from __future__ import annotations

import json
from dataclasses import replace

import hub_cache
import pytest
from tiny_runs import inlay

from inlay.tuner.comparison import compare
from inlay.tuner.comparison.plan import from_spec
from inlay.tuner.comparison.prepare import prepare
from inlay.tuner.shipped import comparisons, shipped

NAMES = [found.name for found in comparisons()]
ROWS = "task.data.max_rows={train: 40, validation: 4, test: 3}"
TINY = ["task.truncate=true", "train.max_steps=2", "train.eval_steps=1", ROWS]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A cache with tiny models and a few rows under the names that the comparisons use."""
    cache = tmp_path_factory.mktemp("hub")
    hub_cache.build(cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(cache))
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        yield cache


def test_a_comparison_is_listed_and_is_no_recipe():
    listed = inlay("ls", "recipes")[1]
    assert all(name in listed for name in NAMES)
    assert not set(NAMES) & {recipe.name for recipe in shipped()}


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_a_shipped_comparison_can_be_trained(name, hub):
    overrides = [] if name in ("compare-quickstart", "compare-search") else ["task.data.max_rows.test=3"]
    plan = from_spec(name, overrides)
    # The models in the cache are too small for the sizes of the real ones.
    ready = prepare(replace(plan, match_parameters=2000 if plan.match_parameters else None))
    assert ready.refused == {}
    assert len(ready.trained) >= 5
    if ready.plan.match_parameters:
        counts = [ready.settings[row.slug].trainable for row in ready.trained if row.kind == "method"]
        assert all(1000 < count < 4000 for count in counts)


@pytest.mark.parametrize("name", ["compare-quickstart", pytest.param("compare-search", marks=pytest.mark.slow)])
def test_a_shipped_comparison_runs_and_leaves_all_files(name, tiny_models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "TEXTS", 2)
    small = [f"base.model={tiny_models('llama')}", *TINY]
    sets = [part for override in small for part in ("--set", override)]
    code, out, err = inlay("compare", name, "--output", "out", *sets)
    assert code == 0, err
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert record["status"] == "complete"
    assert {row["status"] for row in record["rows"]} == {"done"}
    assert record["heading"] in out.replace("\n", " ")
    for file in ("comparison.html", "comparison.csv", "comparison.md", "figures/quality.svg", "figures/quality.png"):
        assert (tmp_path / "out" / file).stat().st_size > 0
