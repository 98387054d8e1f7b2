"""Bases that are 4-bit checkpoints of bitsandbytes: the same model as when it is quantized here, told as it is held.

The checkpoints are made by transformers and bitsandbytes alone (see `checkpoints`).
"""

from __future__ import annotations

import json
import shutil
import time
from types import SimpleNamespace

import pytest
import scorables
import torch
from checkpoints import edit, make, opened_by_transformers, rewrite

from inlay import adapters
from inlay.tuner import base as bases
from inlay.tuner import forecast, plain_weights
from inlay.tuner.model_files import locate
from inlay.tuner.problems import RequestError
from inlay.tuner.quantization import HELD, Quantization, settle

BATCH = torch.randint(5, 400, (3, 12), generator=torch.Generator().manual_seed(1))
FP4 = {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}
KINDS = {
    "nf4": ({}, Quantization(4, "nf4", True)),
    "fp4": (FP4, Quantization(4, "fp4", False)),
    "packed": ({"bnb_4bit_quant_storage": "bfloat16"}, Quantization(4, "nf4", True)),
}
SKIPPED = ({"llm_int8_skip_modules": ["lm_head", "mlp"]}, Quantization(4, "nf4", True))


@pytest.fixture(scope="module")
def made(tiny_models, tmp_path_factory):
    """A function (shape, dtype, **settings) -> folder of that checkpoint; each is written once."""
    folders = {}

    def make_(shape="llama", dtype="float32", **settings):
        key = (shape, dtype, json.dumps(settings, sort_keys=True))
        if key not in folders:
            folder = tmp_path_factory.mktemp("checkpoint")
            folders[key] = make(tiny_models(shape), folder, dtype=dtype, **settings)
        return folders[key]

    return make_


@pytest.fixture
def copied(made, tmp_path):
    """A checkpoint to damage."""
    return shutil.copytree(made(), tmp_path / "copied")


def opened(folder, compute_dtype="fp32", **options):
    files = locate(str(folder))
    held = settle(Quantization(compute_dtype=compute_dtype), ("compute_dtype",), files.stored, files.name)
    facts = bases.read_facts(bases.read_config(files), held.bits)
    return bases.open_base(files, held, facts, bases.read_tokenizer(files), **options)


def quantized_here(folder, held, compute_dtype="fp32"):
    files, facts, tokenizer = scorables.known(folder, 4)
    held = Quantization(4, held.quant_type, held.double_quant, compute_dtype)
    return bases.open_base(files, held, facts, tokenizer)


def logits(model):
    seq2seq = model.config.is_encoder_decoder
    with torch.no_grad():
        return model(input_ids=BATCH, **({"decoder_input_ids": BATCH} if seq2seq else {})).logits


@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_is_bit_for_bit_the_model_that_is_quantized_here(kind, dtype, shape, made, tiny_models):
    """Scales are computed from the weights in the dtype that they are quantized in, so it has to be the same."""
    settings, held = KINDS[kind]
    compute = {"float32": "fp32", "bfloat16": "bf16"}[dtype]
    base = opened(made(shape, dtype, **settings), compute)
    own = quantized_here(tiny_models(shape), held, compute)
    assert str(base.quantization) == str(held)
    assert (base.compute_dtype, base.bytes, base.facts.parameters) == (compute, own.bytes, own.facts.parameters)
    found, wanted = logits(base.model), logits(own.model)
    assert found.dtype == wanted.dtype
    assert torch.equal(found, wanted)
    plain = opened(made(shape, dtype, **settings), compute, float_targets=tuple(base.facts.linears))
    assert not any(map(bases.is_quantized, plain.model.modules()))
    assert torch.equal(logits(plain.model), wanted)


def test_the_dtype_it_was_quantized_from_stays_in_its_scales(made, tiny_models, tmp_path):
    """What bf16 weights were quantized to is not what fp32 weights are, whatever it is computed in later."""
    from transformers import AutoModelForCausalLM

    base, held = opened(made("llama", "bfloat16"), "fp32"), Quantization()
    assert {p.dtype for p in base.model.parameters()} == {torch.float32, torch.uint8}
    assert not torch.equal(logits(base.model), logits(quantized_here(tiny_models("llama"), held).model))
    rounded = AutoModelForCausalLM.from_pretrained(tiny_models("llama"), dtype=torch.bfloat16)
    rounded.save_pretrained(tmp_path)
    for path in tiny_models("llama").glob("*token*"):
        shutil.copy2(path, tmp_path)
    assert torch.equal(logits(base.model), logits(quantized_here(tmp_path, held).model))


def test_what_its_maker_skipped_stays_plain(made):
    skipped = ["lm_head", "model.layers.1.mlp", "q_proj"]
    folder = made(llm_int8_skip_modules=skipped)
    base = opened(folder)
    kinds = {name: bases.is_quantized(base.model.get_submodule(name)) for name in base.facts.linears}
    assert {name for name, quantized in kinds.items() if not quantized} == {
        name for name in base.facts.linears if name.endswith("q_proj") or name.startswith("model.layers.1.mlp")
    }
    assert torch.equal(logits(base.model), logits(opened_by_transformers(folder)))
    assert base.bytes > opened(made()).bytes


def test_a_head_that_is_quantized_too_computes_the_same_as_a_plain_layer(made):
    """Every weight of it can train, and no method takes it for a layer of the body."""
    folder = made(llm_int8_skip_modules=["model.layers.0"])
    theirs = opened_by_transformers(folder)
    assert bases.is_quantized(theirs.lm_head)
    base = opened(folder, float_targets=("model.layers.1.mlp.up_proj",))
    assert type(base.model.lm_head) is torch.nn.Linear
    assert torch.equal(logits(base.model), logits(theirs))


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (Quantization(16), "bits: 16"),
        (Quantization(4, "nf4", False), "quant_type: nf4"),
        (Quantization(4, "fp4", True), "double_quant: true"),
    ],
)
def test_what_is_asked_for_and_not_held_is_named_with_what_is(asked, field, made):
    files = locate(str(made(**FP4)))
    named = (field.partition(":")[0],)
    with pytest.raises(RequestError, match=f"quantized already, as fp4, and {field} is asked for"):
        settle(asked, named, files.stored, files.name)
    assert settle(asked, (), files.stored, files.name) == Quantization(4, "fp4", False)
    assert settle(Quantization(4, "fp4", False, "bf16"), HELD, files.stored, files.name).compute_dtype == "bf16"


OTHERS = {
    "gptq": {"quant_method": "gptq", "bits": 4},
    "awq": {"quant_method": "awq", "bits": 4},
    "fp8": {"quant_method": "fp8"},
    "compressed-tensors": {"quant_method": "compressed-tensors", "config_groups": {}},
    "bitsandbytes in 8 bits": {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False},
    "a method without a name": {"quant_method": "\x1b[31m", "load_in_4bit": True},
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_method_is_refused_by_its_name(name, tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models("llama"), tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": OTHERS[name]}))
    with pytest.raises(RequestError, match=f"already quantized, by {name} .*which is not opened here") as told:
        locate(str(folder))
    assert len(told.value.problems) == 1


def renamed(name, tensor):
    return {name.replace("bitsandbytes__nf4", "bitsandbytes__fp4"): tensor}


def without_states(name, tensor):
    return {} if ".weight." in name else {name: tensor}


LIES = {
    "is nf4 double-quantized, packed in U8": lambda folder: edit(folder, bnb_4bit_quant_type="fp4"),
    "is nf4 double-quantized": lambda folder: edit(folder, bnb_4bit_use_double_quant=False),
    "packed in U8": lambda folder: edit(folder, bnb_4bit_quant_storage="bfloat16"),
    "is fp4 double-quantized": lambda folder: rewrite(folder, renamed),
    "its files hold none": lambda folder: rewrite(folder, without_states),
    "bnb_4bit_quant_type in its config.json is not one of nf4, fp4": lambda f: edit(f, bnb_4bit_quant_type="nf5"),
    "not one of true, false": lambda folder: edit(folder, bnb_4bit_use_double_quant=1),
    "not one of float32, bfloat16, float16": lambda folder: edit(folder, bnb_4bit_compute_dtype="load"),
    "not one of uint8": lambda folder: edit(folder, bnb_4bit_quant_storage=["uint8"]),
    "no list of module names": lambda folder: edit(folder, llm_int8_skip_modules="lm_head"),
}


@pytest.mark.parametrize("told", LIES)
def test_a_configuration_that_says_otherwise_than_its_files_is_refused(told, copied):
    LIES[told](copied)
    with pytest.raises(RequestError, match=told):
        locate(str(copied))


def test_x17_a_module_to_skip_is_a_name_and_no_pattern(copied):
    edit(copied, llm_int8_skip_modules=[r"((\w+)\.?)+!"])
    started = time.monotonic()
    with pytest.raises(RequestError, match="no list of module names"):
        locate(str(copied))
    assert time.monotonic() - started < 1


LAYER = "model.layers.0.mlp.up_proj.weight"


def packed_state(tensor, **changes):
    """What bitsandbytes says of a weight in JSON, changed."""
    said = json.loads(bytes(tensor.tolist()))
    return torch.tensor(list(json.dumps(said | changes).encode()), dtype=torch.uint8)


def changed(part, change):
    """Changes one tensor of a layer's state."""
    return lambda folder: rewrite(
        folder, lambda name, tensor: {name: change(tensor) if name == f"{LAYER}{part}" else tensor}
    )


STATE = ".quant_state.bitsandbytes__nf4"
DAMAGES = {
    "too few codes": changed("", lambda tensor: tensor[:-64].clone()),
    "too few scales": changed(".absmax", lambda tensor: tensor[:-1].clone()),
    "no scales of scales": changed(".nested_absmax", lambda tensor: tensor[:0].clone()),
    "a short table": changed(".quant_map", lambda tensor: tensor[:8].clone()),
    "a short table of scales": changed(".nested_quant_map", lambda tensor: tensor[:8].clone()),
    "scales of another type": changed(".nested_absmax", lambda tensor: tensor.double()),
    "blocks that are too large": changed(STATE, lambda tensor: packed_state(tensor, blocksize=4096)),
    "blocks of nothing": changed(STATE, lambda tensor: packed_state(tensor, blocksize=0)),
    "blocks in words": changed(STATE, lambda tensor: packed_state(tensor, blocksize="64")),
    "another shape": changed(STATE, lambda tensor: packed_state(tensor, shape=[640, 640])),
    "no shape": changed(STATE, lambda tensor: packed_state(tensor, shape=None)),
    "a shape in words": changed(STATE, lambda tensor: packed_state(tensor, shape="large")),
    "a type that is none": changed(STATE, lambda tensor: packed_state(tensor, dtype="nothing")),
    "a type that is a function": changed(STATE, lambda tensor: packed_state(tensor, nested_dtype="load")),
    "an offset in words": changed(STATE, lambda tensor: packed_state(tensor, nested_offset="far")),
    "more keys": changed(STATE, lambda tensor: packed_state(tensor, more=1)),
    "fewer keys": changed(STATE, lambda tensor: packed_state(tensor, nested_blocksize=None)),
    "no JSON": changed(STATE, lambda tensor: tensor[:-5].clone()),
    "other weights": lambda folder: edit(folder, llm_int8_skip_modules=["lm_head", "model.layers.1"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_x2_a_damaged_state_is_refused_before_native_code_reads_it(damage, copied):
    DAMAGES[damage](copied)
    assert locate(str(copied)).stored
    with pytest.raises(RequestError, match=r"of `copied` cannot be (used|loaded)|the weight files of `copied` lack"):
        opened(copied)


def test_a_layer_that_is_plain_and_not_said_to_be_is_refused(made, copied):
    shutil.copy2(made(llm_int8_skip_modules=["lm_head", "up_proj"]) / "model.safetensors", copied)
    with pytest.raises(RequestError, match=r"not quantized, and llm_int8_skip_modules in config\.json does not"):
        opened(copied)


@pytest.mark.parametrize("kind", ["nf4", "fp4", "skipped"])
@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("kept", [False, True])
def test_its_memory_is_forecast_from_its_files(kept, kind, shape, made, monkeypatch):
    """And with the plain weights that are kept beside them, where memory is plentiful."""
    monkeypatch.setattr(plain_weights, "free_memory", lambda: 10**9 if kept else 0)
    base = opened(made(shape, **{**KINDS, "skipped": SKIPPED}[kind][0]))
    base = plain_weights.with_plain_weights(base)
    assert bool(base.plain_bytes) == kept
    kind = adapters.find("lora")
    setting = SimpleNamespace(
        facts=base.facts, files=base.files, quantization=base.quantization, method=kind(kind.Options())
    )
    assert forecast._base_bytes(setting, 4) == pytest.approx(base.bytes + base.plain_bytes, rel=0.02)
