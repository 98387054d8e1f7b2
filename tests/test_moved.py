"""PiSSA and OLoRA on an untouched base: the papers' starts, PEFT's own training of them, and one plain LoRA on disk."""

from __future__ import annotations

import json

import method_cases
import numpy as np
import pytest
import tiny_runs
import torch
from method_cases import Case, batch, logits
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from tiny_runs import inlay, record

from inlay.adapters import Training
from inlay.tuner import base

RANK = 4
STARTS = pytest.mark.parametrize("start", ["pissa", "olora"])


@pytest.fixture(scope="session")
def open_base(tiny_models):
    return method_cases.opening(tiny_models)


def case_of(start: str, bits: int, shape: str = "llama", method: str = "lora") -> Case:
    options = {"r": RANK, "lora_alpha": 6.0, "init_lora_weights": start, "target_modules": ("q_proj", "down_proj")}
    return Case(method, tuple(options.items()), shape, bits)


def attached(case, open_base):
    opened = open_base(case)
    return case.method.attach(opened.model, opened.facts, seed=0, steps=50)


def descend(model, steps: int = 6) -> None:
    """Plain gradient descent on one batch."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    model.train()
    for _ in range(steps):
        model(**batch(None)).loss.backward()
        with torch.no_grad():
            for weight in weights:
                weight -= 0.05 * weight.grad
                weight.grad = None


@STARTS
def test_trains_as_pefts_own_start_does_that_edits_the_base(start, open_base):
    case = case_of(start, 32)
    adapted = attached(case, open_base)
    config = LoraConfig(
        r=RANK, lora_alpha=6.0, init_lora_weights=start, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    reference = get_peft_model(open_base(case).model, config)
    untouched = logits(case, adapted.model)
    for model in (adapted.model, reference):
        descend(model)
    change = (logits(case, reference) - untouched).abs().max()
    assert change > 0.5
    torch.testing.assert_close(logits(case, adapted.model), logits(case, reference), atol=1e-3 * change, rtol=0)


@STARTS
def test_on_4_bits_the_start_is_a_part_of_the_dequantized_weight(start, open_base):
    case = case_of(start, 4)
    plain = open_base(case).model
    layers = [
        (name.removeprefix("base_model.model."), layer)
        for name, layer in attached(case, open_base).model.named_modules()
        if isinstance(layer, LoraLayer)
    ]
    assert len(layers) == 4
    for name, layer in layers:
        weight = base.dequantize(plain.get_submodule(name), torch.float32).numpy()
        a, b = (part["default"].weight.detach().numpy() for part in (layer.lora_A, layer.lora_B))
        taken = layer.scaling["default"] * b[:, :RANK] @ a[:RANK]
        if start == "pissa":  # no other matrix of this rank comes nearer: the next singular value is what is left
            values = np.linalg.svd(weight, compute_uv=False)
            assert np.linalg.norm(weight - taken, 2) == pytest.approx(values[RANK], rel=1e-4)
        else:
            q, upper = np.linalg.qr(weight)
            expected = layer.scaling["default"] * q[:, :RANK] @ upper[:RANK]
            np.testing.assert_allclose(taken, expected, atol=1e-5)


@STARTS
def test_peft_reads_what_is_saved_as_a_plain_lora_of_the_untouched_base(start, open_base, tmp_path):
    case = case_of(start, 4)
    adapted = attached(case, open_base)
    descend(adapted.model)
    adapted.save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (2 * RANK, 12.0, True)
    loaded = PeftModel.from_pretrained(open_base(case).model, tmp_path)
    assert torch.equal(logits(case, loaded), logits(case, adapted.model))


def test_dora_starts_so_as_well(open_base):
    case = case_of("pissa", 4, method="dora")
    adapted = attached(case, open_base)
    untouched = logits(case, open_base(case).model)
    torch.testing.assert_close(logits(case, adapted.model), untouched, atol=1e-4, rtol=1e-5)
    descend(adapted.model)
    assert (logits(case, adapted.model) - untouched).abs().max() > 0.1
    merged = logits(case, attached(case_of("pissa", 32, method="dora"), open_base).model.merge_and_unload())
    torch.testing.assert_close(merged, logits(case, open_base(case_of("pissa", 32)).model), atol=1e-4, rtol=1e-4)


def test_a_run_is_measured_again_as_it_was_and_trains_on_as_a_plain_lora(tmp_path, tiny_models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_runs.world(tmp_path, tiny_models("llama"))
    recipe = tiny_runs.recipe(tmp_path, "lora", "summarization", init_lora_weights="pissa")
    code, _, err = inlay("run", recipe.name, "--output", "done")
    assert code == 0, err
    for arguments in (["done"], ["done/adapter", "--recipe", recipe.name]):
        code, _, err = inlay("eval", *arguments)
        assert code == 0, err
        assert record(tiny_runs.newest(tmp_path, "eval-"))["metrics"] == record(tmp_path / "done")["metrics"]
    plain = tiny_runs.recipe(tmp_path, "lora", "summarization", start_from="done", r=8)
    code, _, err = inlay("run", plain.name, "--output", "on")
    assert code == 0, err
    trained = [record(tmp_path / name)["adapter"]["trainable_parameters"] for name in ("done", "on")]
    assert trained[1] == 2 * trained[0]


def test_a_rank_that_the_weights_do_not_have_is_refused(open_base):
    facts = open_base(case_of("pissa", 4)).facts
    wide = Case("lora", (("r", 33), ("init_lora_weights", "olora")), "llama", 4)
    reason = wide.method.refusal(facts, Training(gradient_checkpointing=False))
    assert "r is 33" in reason
    assert "32 at most" in reason
