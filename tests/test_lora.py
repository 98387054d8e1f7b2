"""LoRA: its equation, its targets, and which options a saved adapter may be loaded with."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from inlay.adapters import Training
from inlay.adapters.lora import Lora
from inlay.tuner import base, model_files

IDS = torch.arange(5, 25).reshape(2, 10)
PLAIN = Training(gradient_checkpointing=False)


def facts_of(folder):
    return base.read_facts(base.read_config(model_files.locate(str(folder))), 32)


def opened(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def attach(folder, *, seed: int = 0, **options):
    adapted = Lora(Lora.Options(**options)).attach(opened(folder), facts_of(folder), seed=seed, steps=50)
    with torch.no_grad():
        for name, weight in adapted.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
    return adapted


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
@pytest.mark.parametrize(("rslora", "factor"), [(False, 12 / 4), (True, 12 / 4**0.5)])
def test_output_is_the_papers_equation(shape, rslora, factor, tiny_models, tmp_path):
    folder = tiny_models(shape)
    adapted = attach(folder, r=4, lora_alpha=12, use_rslora=rslora)
    adapted.save(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    plain = opened(folder)
    for name in facts_of(folder).linears:
        a, b = (saved[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        update = factor * b @ a  # out x in; GPT-2 stores in x out
        weight = plain.get_submodule(name).weight
        weight.data += update.T if shape == "gpt2" else update
    torch.testing.assert_close(logits(adapted.model), logits(plain), atol=1e-3, rtol=1e-4)


def test_peft_loads_what_was_saved(tiny_models, tmp_path):
    adapted = attach(tiny_models("llama"), r=4)
    adapted.save(tmp_path)
    loaded = PeftModel.from_pretrained(opened(tiny_models("llama")), tmp_path)
    assert torch.equal(logits(loaded), logits(adapted.model))


def test_s30_target_typo_suggests(tiny_models):
    facts = facts_of(tiny_models("llama"))
    lora = Lora(Lora.Options(target_modules=["q_proj", "v_prooj"]))
    assert lora.refusal(facts, PLAIN) == "target `v_prooj` matches no module of this llama base; did you mean `v_proj`?"
    longer = Lora(Lora.Options(target_modules=["mlp.gate_prj"]))
    assert "did you mean `mlp.gate_proj`?" in longer.refusal(facts, PLAIN)
    far = Lora(Lora.Options(target_modules=["zzz"]))
    assert "known: q_proj, k_proj, v_proj, o_proj, gate_proj" in far.refusal(facts, PLAIN)


def test_targets_follow_whole_name_parts(tiny_models):
    facts = facts_of(tiny_models("gpt2"))
    chosen = Lora(Lora.Options(target_modules=["attn.c_proj", "transformer.h.1.mlp.c_fc"]))
    assert chosen.refusal(facts, PLAIN) is None
    assert chosen.targets(facts) == (
        "transformer.h.0.attn.c_proj",
        "transformer.h.1.attn.c_proj",
        "transformer.h.1.mlp.c_fc",
    )
    assert Lora(Lora.Options(target_modules=["proj"])).refusal(facts, PLAIN) is not None


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "model.embed_tokens"])
@pytest.mark.parametrize("tied", [True, False])
def test_s27_tied_targets_refused(target, tied, tiny_models):
    facts = facts_of(tiny_models("llama", tied=tied))
    reason = Lora(Lora.Options(target_modules=["q_proj", target])).refusal(facts, PLAIN)
    assert f"target `{target}` cannot be adapted" in reason
    assert ("are one tensor" in reason) == tied


def test_a_module_that_is_not_linear_is_refused(tiny_models):
    reason = Lora(Lora.Options(target_modules=["input_layernorm"])).refusal(facts_of(tiny_models("llama")), PLAIN)
    assert "not a linear layer" in reason


@pytest.mark.parametrize(
    "options", [{"r": 0}, {"r": 10**9}, {"lora_alpha": 0}, {"lora_dropout": 1}, {"target_modules": []}, {"rank": 8}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValidationError):
        Lora.Options(**options)


def test_s28_an_option_that_changes_the_output_must_agree(tiny_models, tmp_path):
    folder = tiny_models("llama")
    attach(folder, r=4, lora_alpha=8, lora_dropout=0.1).save(tmp_path)
    facts = facts_of(folder)
    for options in (
        {"r": 4, "lora_alpha": 16},
        {"r": 4, "lora_alpha": 8, "use_rslora": True},
        {"r": 8, "lora_alpha": 8},
    ):
        with pytest.raises(ValueError, match="trained with"):
            Lora(Lora.Options(**options)).load(tmp_path, opened(folder), facts)
    narrower = Lora(Lora.Options(r=4, lora_alpha=8, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="24 unexpected"):
        narrower.load(tmp_path, opened(folder), facts)
    Lora(Lora.Options(r=4, lora_alpha=8)).load(tmp_path, opened(folder), facts)


def test_a_damaged_or_absent_file_is_named(tiny_models, tmp_path):
    folder = tiny_models("llama")
    facts, lora = facts_of(folder), Lora(Lora.Options(r=4))
    with pytest.raises(ValueError, match="holds no adapter_config"):
        lora.load(tmp_path, opened(folder), facts)
    attach(folder, r=4).save(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is damaged"):
        lora.load(tmp_path, opened(folder), facts)
    path.unlink()
    with pytest.raises(ValueError, match="holds no adapter_model"):
        lora.load(tmp_path, opened(folder), facts)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"adapter_config\.json is damaged"):
        lora.load(tmp_path, opened(folder), facts)


def test_saved_bytes_do_not_depend_on_the_run(tiny_models, tmp_path):
    for name in ("a", "b"):
        attach(tiny_models("llama"), r=4).save(tmp_path / name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("start", ["pissa_niter_4", "eva", "loftq", "corda", "orthogonal", False])
def test_a_start_that_is_not_offered_is_refused_with_the_reason(start):
    with pytest.raises(ValidationError, match=f"init_lora_weights: {start} is not offered: [a-zA-Z]"):
        Lora.Options(init_lora_weights=start)
