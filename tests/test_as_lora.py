"""`inlay export --as-lora`: an adapter of another method as one of LoRA that computes the same, and is proved to."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import method_cases
import pytest
import tiny_runs
import torch
from method_cases import CASES, logits, train
from safetensors.torch import load_file
from tiny_runs import inlay

from inlay import adapters
from inlay.adapters.lora import Lora
from inlay.tuner import base as bases
from inlay.tuner import model_files
from inlay.tuner.base import Quantization
from inlay.tuner.console import Progressing
from inlay.tuner.export.conversion import convert
from inlay.tuner.export.merge import merged_tensors

HELD = Quantization(4, "nf4", True, "fp32")
CONVERTIBLE = [
    case
    for case in CASES
    if case.method.convertible and case.name != "lora" and case.bits == 4 and case.shape in ("llama", "gpt2")
]


def surveyed(case: method_cases.Case, folder: Path) -> SimpleNamespace:
    """What conversion and merging read of a setting."""
    files = model_files.locate(str(folder))
    facts = bases.read_facts(bases.read_config(files), 4)
    tokenizer, method = bases.read_tokenizer(files), case.method
    return SimpleNamespace(
        files=files, facts=facts, tokenizer=tokenizer, method=method, trainable=method.trainable(facts)
    )


@pytest.fixture
def trained(tiny_models, tmp_path):
    """A function case -> what `convert` takes: an adapter of three steps on the shape's base in NF4."""

    def trained_(case: method_cases.Case) -> SimpleNamespace:
        setting = surveyed(case, tiny_models(case.shape))
        floats = setting.method.targets(setting.facts) if setting.method.needs_float_weights else ()
        opened = bases.open_base(setting.files, HELD, setting.facts, setting.tokenizer, float_targets=floats)
        adapted = case.method.attach(opened.model, setting.facts, seed=0, steps=50)
        train(case, adapted, 3)
        adapted.save(tmp_path / "adapter")
        return SimpleNamespace(setting=setting, adapter=tmp_path / "adapter")

    return trained_


def updates(setting: SimpleNamespace, adapter: Path) -> dict[str, torch.Tensor]:
    """What merging the adapter adds to each target's weight, out x in."""
    merged = dict(merged_tensors(setting, adapter, HELD))
    opened = bases.open_base(setting.files, HELD, setting.facts, setting.tokenizer)
    found = {}
    for name in setting.method.targets(setting.facts):
        weight = merged[f"{name}.weight"]
        weight = weight.T if setting.facts.model_type == "gpt2" else weight  # as its own layers store it
        found[name] = weight - bases.dequantize(opened.model.get_submodule(name), torch.float32)
    return found


@pytest.mark.parametrize("case", CONVERTIBLE, ids=str)
def test_s25_a_converted_adapter_is_what_its_merge_adds(case, trained, tmp_path):
    made = trained(case)
    wanted = updates(made.setting, made.adapter)
    told = convert(made, tmp_path / "lora", None, Progressing())
    found = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert len(found) == 2 * len(wanted)
    for name, update in wanted.items():
        a, b = (found[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        assert len(a) == told.rank
        assert update.norm() > 1e-4, "the adapter must matter"
        assert (b @ a - update).norm() < 1e-4 * update.norm() + 1e-6
    assert told.left_out == 0


@pytest.fixture(scope="module")
def world(tiny_models, tmp_path_factory):
    """A folder with runs of MiSS, FourierFT, LoRA, IA3 and a prefix."""
    folder = tmp_path_factory.mktemp("world")
    options = {"miss": {"r": 8}, "fourierft": {"scaling": 3000.0}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_runs.world(folder, tiny_models("llama"))
        for method in ("miss", "fourierft", "lora", "ia3", "prefix"):
            recipe = tiny_runs.recipe(folder, method, "dialogue", **options.get(method, {}))
            code, _, err = inlay("run", recipe.name, "--output", method)
            assert code == 0, err
    return folder


def test_an_export_as_lora_is_proved_and_loads_as_lora(inside):
    code, out, err = inlay("export", "miss", "--to", "ship", "--as-lora")
    assert code == 0, err
    assert "same output in 6 of 6 rows" in out
    assert "rank 8, which leaves nothing out" in out
    made = json.loads((inside / "ship" / "export.json").read_text())
    assert made["proof"]["faults"] == []
    assert made["method"] == "miss"
    config = json.loads((inside / "ship" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 8, 8)
    assert not config["rank_pattern"]
    assert not config["alpha_pattern"]
    assert made["converted"]["own_bytes"] == (inside / "miss/adapter/adapter_model.safetensors").stat().st_size
    assert "turned into LoRA of rank 8" in (inside / "ship" / "README.md").read_text()


@pytest.mark.slow
def test_a_rank_that_loses_too_much_is_refused_with_the_numbers(inside):
    code, out, err = inlay("export", "fourierft", "--to", "ship", "--as-lora", "--rank", "1")
    assert (code, out) == (1, "")
    assert "is not the model that was benchmarked, and was not written" in err
    assert "rank 1 leaves out up to" in err
    assert not (inside / "ship").exists()


def test_a_rank_says_what_it_leaves_out(trained, tmp_path):
    case = next(case for case in CONVERTIBLE if (case.name, case.shape, case.options) == ("fourierft", "llama", ()))
    made = trained(case)
    told = convert(made, tmp_path / "lora", 4, Progressing())
    found, lost = load_file(tmp_path / "lora" / "adapter_model.safetensors"), []
    for name, update in updates(made.setting, made.adapter).items():
        a, b = (found[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        values = torch.linalg.svdvals(update)
        nearest = values[4:].norm() / values.norm()  # Eckart and Young: no matrix of rank 4 is nearer
        lost.append(((b @ a - update).norm() / update.norm()).item())
        assert lost[-1] == pytest.approx(nearest.item(), rel=1e-3)
    assert told.left_out == pytest.approx(max(lost), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("lora", "--as-lora"), "the adapter is LoRA already"),
        (("ia3", "--as-lora"), "IA3 cannot be turned into LoRA: PEFT cannot tell what it adds to a weight"),
        (("prefix", "--as-lora"), "prefix tuning cannot be turned into LoRA: it does not change the base's weights"),
        (("miss", "--as-lora", "--format", "gguf"), "it has no --format gguf"),
        (("miss", "--as-lora", "--rank", "0"), "a rank is 1 at least"),
        (("miss", "--rank", "4"), "--rank is of what --as-lora or --combine makes"),
        (("miss", "--as-lora", "--base", "original"), "no base to choose"),
    ],
    ids=lambda value: "-".join(value).replace("--", "") if isinstance(value, tuple) else "",
)
def test_what_is_no_conversion_is_refused_before_weights_load(inside, arguments, reason, monkeypatch):
    monkeypatch.setattr(bases, "open_base", lambda *_, **__: pytest.fail("weights were loaded"))
    code, out, err = inlay("export", *arguments, "--to", "ship")
    assert (code, out) == (2, "")
    assert reason in err
    assert not (inside / "ship").exists()


def test_the_converted_adapter_is_one_that_the_catalogue_loads(trained, tmp_path):
    """And its configuration is what PEFT reads on GPT-2, whose layers store their weights transposed."""
    case = next(case for case in CONVERTIBLE if (case.name, case.shape) == ("vera", "gpt2"))
    made = trained(case)
    told = convert(made, tmp_path / "lora", None, Progressing())
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["fan_in_fan_out"]
    name, settled = adapters.recognize(tmp_path / "lora")
    assert name == "lora"
    setting = made.setting
    method = Lora(Lora.Options(**{**settled, "r": told.rank}))
    found = []
    for way, folder in ((case.method, made.adapter), (method, tmp_path / "lora")):
        opened = bases.open_base(setting.files, HELD, setting.facts, setting.tokenizer)
        found.append(logits(case, way.load(folder, opened.model, setting.facts).model))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
