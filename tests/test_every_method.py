"""The contract of `inlay.adapters`, held on every method in the folder.

Each method meets the full contract on one shape of base, drawn by a hash of its name, in NF4, and with default options
in fp32; the other shapes get attach, one step and reload. Slow tests hold everything to everything. A new method is
picked up by itself.
"""

from __future__ import annotations

import dataclasses
import json
import math

import method_cases
import pytest
import torch
from method_cases import (
    CASES,
    SHAPES,
    Case,
    batch,
    contract,
    logits,
    loss_without_dropout,
    methods_on,
    train,
    trainable,
)
from safetensors.torch import load_file, save_file

from inlay import adapters
from inlay.adapters import Training
from inlay.eval import Decoding
from inlay.eval.generate import generate
from inlay.eval.scoring import Scorable
from inlay.tuner.base import read_config, read_facts
from inlay.tuner.model_files import locate

STARTS_CONSTANT = ("none", "full", "ia3", "oft", "miss", "road", "shira", "fourierft", "waveft", "ln_tuning")


@pytest.fixture(scope="session")
def open_base(tiny_models):
    return method_cases.opening(tiny_models)


@pytest.fixture
def attach(open_base):
    return method_cases.attaching(open_base)


def test_the_draw_covers_all_shapes():
    assert {case.shape for case in CASES if case.drawn} == set(SHAPES)


@contract()
def test_starts_as_the_base_where_it_promises_to(case, open_base, attach):
    untouched = logits(case, open_base(case, as_adapted=False).model)
    started = logits(case, attach(case)[0].model)
    assert torch.isfinite(started).all()
    if case.starts_near:
        torch.testing.assert_close(started, untouched, atol=1e-4, rtol=1e-5)
    else:
        assert torch.equal(started, untouched) == case.method.identity


@contract()
def test_trainable_count_is_the_closed_formula(case, attach):
    adapted, facts = attach(case)
    assert sum(weight.numel() for weight in trainable(adapted).values()) == case.method.trainable(facts)
    assert all(weight.dtype == torch.float32 for weight in trainable(adapted).values())


@contract("none")
def test_all_adapter_weights_and_no_others_get_gradients_also_after_an_evaluation(case, attach):
    adapted, _ = attach(case)
    train(case, adapted, 1, evaluate=True)  # a first step, since a factor that starts at zero blocks its partner's
    logits(case, adapted.model)
    adapted.model.train()
    adapted.model(**batch(case)).loss.backward()
    with_gradient = {name for name, weight in adapted.model.named_parameters() if weight.grad is not None}
    assert with_gradient == set(trainable(adapted)) <= set(adapted.state())
    assert not [name for name, weight in trainable(adapted).items() if not weight.grad.any()]


@contract("none")
def test_s26_an_evaluation_between_steps_changes_nothing(case, attach):
    assert train(case, attach(case)[0], 4) == train(case, attach(case)[0], 4, evaluate=True)


@contract("none", "full")
def test_base_weights_are_bit_equal_after_training(case, open_base):
    opened = open_base(case)
    before = [
        (module, name, tensor.detach().clone(), _quantization(tensor))
        for module in opened.model.modules()
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    ]
    adapted = case.method.attach(opened.model, opened.facts, seed=0, steps=50)
    train(case, adapted, 3, evaluate=True)
    assert before
    for module, name, tensor, quantization in before:
        now = getattr(module, name)
        assert torch.equal(now, tensor), name
        assert _quantization(now).keys() == quantization.keys()
        assert all(torch.equal(part, quantization[key]) for key, part in _quantization(now).items()), name


def _quantization(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    state = getattr(tensor, "quant_state", None)
    return {} if state is None else {key: part.clone() for key, part in state.as_dict(packed=True).items()}


@contract()
def test_s40_disabled_is_the_base_bit_for_bit(case, open_base, attach):
    untouched = logits(case, open_base(case, as_adapted=False).model)
    adapted, _ = attach(case)
    if trainable(adapted):
        train(case, adapted, 3)
    trained, names = logits(case, adapted.model), set(trainable(adapted))
    with adapted.disabled():
        assert torch.equal(logits(case, adapted.model), untouched)
    assert torch.equal(logits(case, adapted.model), trained)
    assert torch.equal(trained, untouched) == (not names)
    assert set(trainable(adapted)) == names


@contract("none")
def test_loss_falls(case, attach):
    adapted, _ = attach(case)
    before = loss_without_dropout(case, adapted)
    train(case, adapted, 8)
    assert loss_without_dropout(case, adapted) < before - 0.02


@contract("none", bits=(4,))
def test_trains_and_generates_where_the_base_computes_in_bf16(case, open_base):
    opened = open_base(case, compute_dtype="bf16")
    adapted = case.method.attach(opened.model, opened.facts, seed=0, steps=50)
    assert all(math.isfinite(loss) for loss in train(case, adapted, 2))
    assert all(weight.dtype == torch.float32 for weight in trainable(adapted).values())
    model = Scorable(adapted.model, adapted.inner, opened.facts.kind, case.method.prepends, pad_id=1)
    assert all(generate(model, [[5, 6, 7]], Decoding(max_new_tokens=3), stop_ids=(0,), batch_size=1))


@contract()
def test_saved_and_reloaded_gives_the_same_logits(case, open_base, attach, tmp_path):
    _save_reload(case, open_base, attach, tmp_path, steps=3)


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=str(c), marks=() if c.bits == 4 else pytest.mark.slow) for c in CASES if not c.quick],
)
def test_attaches_steps_and_reloads_on_other_shapes(case, open_base, attach, tmp_path):
    _save_reload(case, open_base, attach, tmp_path, steps=1)


def _save_reload(case, open_base, attach, tmp_path, *, steps):
    adapted, _ = attach(case)
    if trainable(adapted):
        train(case, adapted, steps)
    adapted.save(tmp_path / "a")
    opened = open_base(case)
    reloaded = case.method.load(tmp_path / "a", opened.model, opened.facts)
    assert torch.equal(logits(case, reloaded.model), logits(case, adapted.model))
    reloaded.save(tmp_path / "b")
    weights = [folder / "adapter_model.safetensors" for folder in (tmp_path / "a", tmp_path / "b")]
    assert [path.exists() for path in weights] == [bool(trainable(adapted))] * 2
    if trainable(adapted):
        first, second = map(load_file, weights)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


@contract()
def test_a_saved_adapter_is_recognized_and_loads_with_what_it_settles(case, open_base, attach, tmp_path):
    adapted, _ = attach(case)
    adapted.save(tmp_path)
    name, settled = adapters.recognize(tmp_path)
    assert name == case.name
    opened = open_base(case)
    loaded = adapters.find(name)(adapters.find(name).Options(**settled)).load(tmp_path, opened.model, opened.facts)
    assert torch.equal(logits(case, loaded.model), logits(case, adapted.model))


@contract()
def test_x14_saved_adapter_names_no_local_path_and_brings_no_card(case, open_base, tmp_path):
    opened = open_base(case)
    case.method.attach(opened.model, opened.facts, seed=0, steps=50).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"adapter_config.json", "adapter_model.safetensors"}
    for path in tmp_path.iterdir():
        assert str(opened.files.folder).encode() not in path.read_bytes()


@contract("none")
def test_state_holds_all_that_a_reopened_base_lacks(case, attach):
    adapted, _ = attach(case)
    train(case, adapted, 2)
    best, wanted = adapted.state(), logits(case, adapted.model)
    train(case, adapted, 2)
    assert not torch.equal(logits(case, adapted.model), wanted)
    adapted.load_state(best)
    assert torch.equal(logits(case, adapted.model), wanted)
    other, _ = attach(case, seed=5)
    other.load_state(best)
    assert torch.equal(logits(case, other.model), wanted)
    first = next(iter(best))
    with pytest.raises(ValueError, match="1 missing"):
        adapted.load_state({name: tensor for name, tensor in best.items() if name != first})


@contract("none")
@pytest.mark.parametrize("fault", ["missing", "unexpected", "of another shape"])
def test_s28_weights_that_do_not_fit_are_an_error(case, fault, open_base, attach, tmp_path):
    attach(case)[0].save(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensor = tensors.pop(name)
    if fault == "unexpected":
        tensors |= {name: tensor, f"{name}.more": tensor.clone()}
    elif fault == "of another shape":
        tensors[name] = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] + 1)
    save_file(tensors, path)
    opened = open_base(case)
    with pytest.raises(ValueError, match=f"1 {fault}: {name}"):
        case.method.load(tmp_path, opened.model, opened.facts)


@contract()
def test_s28_an_adapter_of_another_method_is_an_error(case, open_base, attach, tmp_path):
    attach(case)[0].save(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "method": "other", "peft_type": "OTHER"}))
    opened = open_base(case)
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        case.method.load(tmp_path, opened.model, opened.facts)


@contract()
def test_s9_batched_left_padded_generation_equals_single(case, attach):
    adapted, facts = attach(case)
    if trainable(adapted):
        train(case, adapted, 2)
    prompts = [row[: 4 + 4 * i].tolist() for i, row in enumerate(batch(case)["input_ids"])]
    prompts.append(prompts[0][::-1])  # two of one length are a batch
    model = Scorable(adapted.model, adapted.inner, facts.kind, case.method.prepends, pad_id=1)
    eight = Decoding(max_new_tokens=8)
    together, alone = (generate(model, prompts, eight, stop_ids=(0,), batch_size=size) for size in (4, 1))
    assert all(alone)
    for prompt, one, other in zip(prompts, together, alone, strict=True):
        assert one == other or _tied(model, prompt, one, other)


def _tied(model: Scorable, prompt: list[int], one: list[int], other: list[int]) -> bool:
    """Whether the first tokens that differ are equally likely up to rounding, of which batches have their own: for MiSS
    on Llama two tokens are 2e-7 apart. In fp64 a batch changes nothing there."""
    place = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    begun = other[:place]
    inputs = {"input_ids": prompt + begun}
    if model.kind == "seq2seq":
        inputs = {"input_ids": prompt, "decoder_input_ids": [model.start_id, *begun]}
    with torch.no_grad():
        logits = model.model(**{name: torch.tensor([ids]) for name, ids in inputs.items()}).logits[0, -1]
    return abs(logits[one[place]] - logits[other[place]]).item() < 1e-5


@contract()
def test_inner_continues_from_the_cache_that_model_filled(case, attach):
    adapted, facts = attach(case)
    if trainable(adapted):
        train(case, adapted, 2)
    ids = batch(case)["input_ids"]
    key, fixed = ("decoder_input_ids", {"input_ids": ids}) if facts.kind == "seq2seq" else ("input_ids", {})
    with torch.no_grad():
        whole = adapted.model(**fixed, **{key: ids}).logits[:, -ids.shape[1] :]  # prepended tokens stand before it
        head = adapted.model(**fixed, **{key: ids[:, :7]}, use_cache=True)
        again = {"encoder_outputs": (head.encoder_last_hidden_state,)} if fixed else {}
        tail = adapted.inner(**again, **{key: ids[:, 7:]}, past_key_values=head.past_key_values)
    assert whole.shape[1] == ids.shape[1]
    torch.testing.assert_close(torch.cat([head.logits[:, -7:], tail.logits], 1), whole, atol=1e-3, rtol=1e-4)


@contract("none")
def test_s32_trains_under_activation_checkpointing_or_refuses_in_one_line(case, attach, open_base):
    facts = open_base(case).facts
    reason = case.method.refusal(facts, Training(gradient_checkpointing=True))
    assert case.method.refusal(facts, Training(gradient_checkpointing=False)) is None
    if not case.method.checkpointing:
        assert "train.gradient_checkpointing: false" in reason
        assert "\n" not in reason
        return
    assert reason is None
    gradients = []
    for checkpointing in (False, True):
        adapted, facts = attach(case)
        if checkpointing:
            adapted.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        calls = []
        block = next(name for name, _ in adapted.model.named_modules() if name.endswith(tuple(facts.linears)))
        adapted.model.get_submodule(block).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        adapted.model.train()
        torch.manual_seed(0)
        adapted.model(**batch(case), use_cache=False).loss.backward()
        assert len(calls) == 1 + checkpointing
        gradients.append({name: weight.grad for name, weight in trainable(adapted).items()})
    for name, gradient in gradients[0].items():
        # T5's decoder layers share the encoder's output and the position biases, whose gradients are summed in another
        # order: up to 2e-5 where gradients are up to 29 (WaveFT), and 2e-14 where the same is computed in fp64.
        atol = 1e-5 * max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(gradients[1][name], gradient, atol=atol, rtol=1e-4)


@contract()
def test_initial_weights_depend_on_the_seed_alone(case, attach):
    torch.manual_seed(1)
    torch.rand(3)
    before = torch.get_rng_state()
    first = attach(case, seed=7)[0].state()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = attach(case, seed=7)[0].state()
    other = attach(case, seed=8)[0].state()
    assert all(torch.equal(first[name], second[name]) for name in first)
    drawn = any(not torch.equal(first[name], other[name]) for name in first)
    assert drawn == (case.name not in STARTS_CONSTANT and not case.starts_near)


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
@pytest.mark.parametrize(
    ("name", "shape"), [(n, shape) for shape in SHAPES for n in adapters.names() if n not in methods_on(shape)]
)
def test_a_shape_that_a_method_does_not_fit_is_refused_before_weights_load(name, shape, bits, tiny_models):
    facts = read_facts(read_config(locate(str(tiny_models(shape)))), bits)
    method = adapters.find(name)(adapters.find(name).Options())
    assert method.title in method.refusal(facts, Training(gradient_checkpointing=False))


@pytest.mark.parametrize("name", adapters.names())
def test_plain_layers_in_place_of_8_bit_ones_are_refused(name, open_base):
    method = adapters.find(name)(adapters.find(name).Options())
    facts = dataclasses.replace(open_base(Case(name, (), "llama", 32)).facts, bits=8)
    reason = method.refusal(facts, Training(gradient_checkpointing=False))
    # SHiRA adds to the weights themselves: it needs no plain layers on 4 bits, and cannot do with 8.
    assert (reason is not None) == (method.needs_float_weights or name == "shira")
