"""Bottleneck adapters against the papers' equations written out, and as a citizen of PEFT."""

from __future__ import annotations

import pytest
import tiny
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from inlay.adapters import Training
from inlay.adapters.bottleneck import Bottleneck, sites
from inlay.adapters.bottleneck.layer import BottleneckConfig, BottleneckLayer
from inlay.tuner import base, model_files

IDS = torch.arange(5, 25).reshape(2, 10)
PLACEMENTS = ("houlsby", "pfeiffer", "parallel")


def facts_of(folder):
    return base.read_facts(base.read_config(model_files.locate(str(folder))), 32)


def opened(folder, dtype=torch.float32) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def config(placement: str = "houlsby", size: int = 8, **fields) -> BottleneckConfig:
    return BottleneckConfig(task_type="CAUSAL_LM", placement=placement, bottleneck_size=size, **fields)


def perturb(model: nn.Module, seed: int = 0) -> nn.Module:
    """Fills every adapter weight with noise, so that no adapter is an identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "bottleneck_" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def reference(model: nn.Module, weights: dict[str, torch.Tensor], placement: str, scaling: float) -> torch.Tensor:
    """The adapted Llama's logits: the base with hooks that compute each placement's equation from saved weights."""

    def adapter(x: torch.Tensor, site: str) -> torch.Tensor:
        w = {
            key: weights[f"base_model.model.{site}.bottleneck_{key}"]
            for key in ("down.weight", "down.bias", "up.weight", "up.bias")
        }
        inner = torch.relu(x @ w["down.weight"].T + w["down.bias"])
        return scaling * (inner @ w["up.weight"].T + w["up.bias"])

    for i, block in enumerate(model.model.layers):
        at = f"model.layers.{i}"
        if placement == "parallel":
            block.mlp.register_forward_hook(lambda _, args, y, s=f"{at}.mlp": y + adapter(args[0], s))
            continue
        block.mlp.down_proj.register_forward_hook(lambda _, args, y, s=f"{at}.mlp.down_proj": y + adapter(y, s))
        if placement == "houlsby":
            attention = f"{at}.self_attn.o_proj"
            block.self_attn.o_proj.register_forward_hook(lambda _, args, y, s=attention: y + adapter(y, s))
    return logits(model)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_output_is_the_papers_equation(placement, tiny_models, tmp_path):
    from safetensors.torch import load_file

    folder = tiny_models("llama")
    facts = facts_of(folder)
    method = Bottleneck(Bottleneck.Options(placement=placement, bottleneck_size=8, scaling=1.5))
    adapted = method.attach(opened(folder), facts, seed=0, steps=50)
    perturb(adapted.model)
    adapted.save(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert len(weights) == 4 * len(method.targets(facts))
    expected = reference(opened(folder), weights, placement, 1.5)
    torch.testing.assert_close(logits(adapted.model.eval()), expected, atol=1e-4, rtol=1e-5)
    assert (expected - logits(opened(folder))).abs().max() > 0.1


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_peft_saves_and_loads_it_like_its_own(placement, tiny_models, tmp_path):
    folder = tiny_models("gpt2")
    model = get_peft_model(opened(folder), config(placement)).eval()
    assert torch.equal(logits(model), logits(opened(folder)))
    perturb(model).save_pretrained(tmp_path)
    by_path = PeftModel.from_pretrained(opened(folder), tmp_path).eval()
    by_auto = AutoPeftModelForCausalLM.from_pretrained(tmp_path).eval()
    lean = PeftModel.from_pretrained(opened(folder), tmp_path, low_cpu_mem_usage=True).eval()
    for loaded in (by_path, by_auto, lean):
        assert torch.equal(logits(loaded), logits(model))
    assert not any(weight.requires_grad for weight in by_path.parameters())
    with by_path.disable_adapter():
        assert torch.equal(logits(by_path), logits(opened(folder)))


@pytest.mark.parametrize(
    ("placement", "then"), [("houlsby", "parallel"), ("pfeiffer", "houlsby"), ("parallel", "parallel")]
)
def test_two_adapters_switch_stack_and_leave(placement, then, tiny_models):
    folder = tiny_models("llama")
    model = perturb(get_peft_model(opened(folder), config(placement))).eval()
    first = logits(model)
    model.add_adapter("second", config(then, size=4, activation="tanh"))
    assert torch.equal(logits(model), first)
    model.set_adapter("second")
    assert torch.equal(logits(model), logits(opened(folder)))
    perturb(model, seed=1)
    second = logits(model)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all(".second." in name for name in trained)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    assert min((both - one).abs().max() for one in (first, second)) > 1e-3
    model.base_model.set_adapter("second")
    model.delete_adapter("default")
    assert torch.equal(logits(model), second)
    assert torch.equal(logits(model.unload()), logits(opened(folder)))


def test_an_adapter_inside_a_wrapped_module_is_refused():
    untrained = AutoModelForCausalLM.from_config(tiny.config("llama", 64))
    model = get_peft_model(untrained, config("parallel"))
    with pytest.raises(ValueError, match="add the parallel adapter last"):
        model.add_adapter("second", config("pfeiffer"))


def test_adapters_side_by_side_add_their_changes():
    layer = BottleneckLayer(nn.Linear(6, 6), 6, 6)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    layer.set_adapter(["a", "b"])
    for name in ("a", "b"):
        layer.update_layer(name, config("pfeiffer", size=2))
    perturb(layer)
    y = layer.base_layer(x)
    changes = [layer.bottleneck_up[name](torch.relu(layer.bottleneck_down[name](y))) for name in ("a", "b")]
    torch.testing.assert_close(layer(x), y + changes[0] + changes[1])


def test_merging_is_refused_with_the_reason(tiny_models):
    model = get_peft_model(opened(tiny_models("llama")), config())
    for merge in (model.merge_and_unload, model.merge_adapter):
        with pytest.raises(ValueError, match="not linear"):
            merge()


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_adapter_is_fp32_on_a_bf16_base_that_stays_bf16(placement, tiny_models):
    folder = tiny_models("llama")
    plain = opened(folder, torch.bfloat16)
    expected = logits(plain)
    model = get_peft_model(plain, config(placement)).eval()
    assert {weight.dtype for name, weight in model.named_parameters() if "bottleneck_" in name} == {torch.float32}
    assert logits(model).dtype == torch.bfloat16
    assert torch.equal(logits(model), expected)


def test_dropout_is_active_in_training_only(tiny_models):
    model = perturb(get_peft_model(opened(tiny_models("llama")), config(dropout=0.5)))
    assert torch.equal(logits(model.eval()), logits(model))
    assert not torch.equal(logits(model.train()), logits(model))


def test_top_level_names_stay_free():
    import importlib.util

    assert importlib.util.find_spec("bottleneck") is None  # pandas looks for a package of that name


@pytest.mark.parametrize("shape", tiny.SHAPES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_architecture_shows_its_sites(shape, placement, tiny_models):
    facts = facts_of(tiny_models(shape))
    method = Bottleneck(Bottleneck.Options(placement=placement))
    assert method.refusal(facts, Training(gradient_checkpointing=False)) is None
    targets = method.targets(facts)
    # Two blocks; T5 has two more in its encoder, and cross-attention in the decoder's.
    one_each = 4 if shape == "t5" else 2
    assert len(targets) == len(set(targets)) == {"houlsby": 10 if shape == "t5" else 4}.get(placement, one_each)
    if placement != "parallel":
        assert all(facts.linears[name].out_features == facts.hidden for name in targets)
        assert not any(name.endswith(("q_proj", "k_proj", "v_proj", ".q", "c_attn", "up_proj")) for name in targets)


OPT = {
    "model.decoder.layers.0.self_attn.k_proj": 8,
    "model.decoder.layers.0.self_attn.out_proj": 8,
    "model.decoder.layers.0.fc1": 32,
    "model.decoder.layers.0.fc2": 8,
}


def test_a_feed_forward_network_without_a_module_has_no_parallel():
    assert sites("houlsby", OPT, 8) == tuple(OPT)[1::2]
    with pytest.raises(LookupError, match="no module of its own"):
        sites("parallel", OPT, 8)


def test_an_unknown_architecture_is_refused_and_takes_named_targets(tiny_models):
    with pytest.raises(LookupError, match="name the modules to adapt in target_modules"):
        sites("pfeiffer", {"model.layers.0.mixer.in_proj": 8, "model.layers.0.mixer.out_proj": 8}, 8)
    with pytest.raises(LookupError, match="name the modules"):
        sites("pfeiffer", {"encoder": 8}, 8)
    facts = facts_of(tiny_models("llama"))
    method = Bottleneck(Bottleneck.Options(target_modules=("up_proj",), bottleneck_size=4))
    assert method.targets(facts) == ("model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj")
    adapted = method.attach(opened(tiny_models("llama")), facts, seed=0, steps=50)
    count = sum(weight.numel() for weight in adapted.model.parameters() if weight.requires_grad)
    assert count == method.trainable(facts) == 2 * (128 * 4 + 4 + 4 * 128 + 128)
    typo = Bottleneck(Bottleneck.Options(target_modules=("down_prj",)))
    assert "did you mean `down_proj`?" in typo.refusal(facts, Training(gradient_checkpointing=False))


def test_parallel_runs_beside_a_whole_attention_that_returns_a_tuple(tiny_models):
    folder = tiny_models("llama")
    method = Bottleneck(Bottleneck.Options(placement="parallel", target_modules=("self_attn",), bottleneck_size=4))
    adapted = method.attach(opened(folder), facts_of(folder), seed=0, steps=50)
    assert torch.equal(logits(adapted.model.eval()), logits(opened(folder)))
    changed = logits(perturb(adapted.model))
    assert (changed - logits(opened(folder))).abs().max() > 0.1
