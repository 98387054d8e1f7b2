"""Opening a base: every way to hold it, what it weighs, and that nothing but training changes it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import scorables
import torch

from inlay.tuner import base as bases
from inlay.tuner.base import Quantization
from inlay.tuner.environment import describe
from inlay.tuner.problems import MachineError, RequestError

BATCH = torch.randint(5, 400, (3, 12), generator=torch.Generator().manual_seed(1))


def opened(folder, quantization=None, **options):
    quantization = quantization or Quantization(compute_dtype="fp32")
    files, facts, tokenizer = scorables.known(folder, quantization.bits)
    return bases.open_base(files, quantization, facts, tokenizer, **options)


def inputs(base):
    return {"input_ids": BATCH, **({"decoder_input_ids": BATCH} if base.facts.kind == "seq2seq" else {})}


def logits(base):
    with torch.no_grad():
        return base.model(**inputs(base)).logits


def quantized_layers(model):
    import bitsandbytes as bnb

    return [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]


@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5", "gemma2", "qwen3", "gpt_neo"])
@pytest.mark.parametrize(
    "quantization",
    [
        Quantization(4),
        Quantization(4, "fp4", double_quant=False),
        Quantization(4, compute_dtype="bf16"),
        Quantization(8),
        Quantization(16),
        Quantization(32),
    ],
    ids=lambda q: f"{q}-{q.compute_dtype}",
)
def test_every_way_to_hold_a_base_works_on_every_shape(quantization, shape, tiny_models):
    base = opened(tiny_models(shape), quantization)
    wanted = {16: "bf16"}.get(quantization.bits, "fp32")
    assert base.compute_dtype == (wanted if quantization.compute_dtype == "auto" else quantization.compute_dtype)
    assert torch.isfinite(logits(base)).all()
    assert not base.model.training
    assert not any(weight.requires_grad for weight in base.model.parameters())
    assert bool(quantized_layers(base.model)) == (quantization.bits == 4)


def test_bytes_in_memory_are_those_computed_by_hand(tiny_models):
    hidden, wide, vocabulary, keys = 64, 128, 492, 32
    per_layer = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * wide
    linear, kept = 2 * per_layer, 2 * vocabulary * hidden + 5 * hidden  # embedding and head, five norms
    rotary = 2 * 8 * 4  # the inverse frequencies, twice
    exact = opened(tiny_models("llama"), Quantization(32))
    assert exact.facts.parameters == linear + kept
    assert exact.bytes == 4 * (linear + kept) + rotary
    assert opened(tiny_models("llama"), Quantization(16)).bytes == 2 * (linear + kept) + rotary
    codes = 14 * 16 * 4  # 14 layers, each with its table of 16 values
    plain = opened(tiny_models("llama"), Quantization(4, double_quant=False))
    assert plain.bytes == linear // 2 + linear // 64 * 4 + codes + 4 * kept + rotary
    tied = opened(tiny_models("llama", tied=True), Quantization(32))
    assert exact.bytes - tied.bytes == 4 * vocabulary * hidden


def test_bytes_in_memory_are_the_same_every_time(tiny_models):
    assert len({opened(tiny_models("llama")).bytes for _ in range(3)}) == 1


@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("bits", [4, 16, 32])
def test_plain_targets_compute_the_same_to_the_bit(bits, shape, tiny_models):
    quantization = Quantization(bits)
    base = opened(tiny_models(shape), quantization)
    plain = opened(tiny_models(shape), quantization, float_targets=tuple(base.facts.linears))
    assert not quantized_layers(plain.model)
    assert torch.equal(logits(plain), logits(base))


@pytest.mark.parametrize("part", [slice(None), slice(0, 3)], ids=["all", "some"])
@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
def test_targets_are_made_plain_and_quantized_again_on_a_loaded_base(shape, part, tiny_models):
    base = opened(tiny_models(shape))
    modules, wanted = dict(base.model.named_modules()), logits(base)
    targets = tuple(base.facts.linears)[part]
    put_back = bases.dequantize_targets(base.model, targets, torch.float32)
    assert {type(base.model.get_submodule(name)) for name in targets} == {torch.nn.Linear}
    assert base.model.is_quantized == (part != slice(None))
    assert torch.equal(logits(base), wanted)
    put_back()
    assert dict(base.model.named_modules()) == modules
    assert base.model.is_quantized
    assert torch.equal(logits(base), wanted)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
def test_s26_no_layer_may_repack(shape, tiny_models):
    layers = quantized_layers(opened(tiny_models(shape)).model)
    assert len(layers) > 5
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


@pytest.mark.parametrize("double_quant", [True, False])
def test_s26_a_forward_changes_no_weight(double_quant, tiny_models):
    print("this processor:", describe("cpu").device)
    base = opened(tiny_models("llama"), Quantization(4, double_quant=double_quant, compute_dtype="fp32"))
    layers = quantized_layers(base.model)
    before = [(layer.weight.data.clone(), bases.dequantize(layer, torch.float32)) for layer in layers]
    logits(base)
    for layer, (weight, dequantized) in zip(quantized_layers(base.model), before, strict=True):
        assert torch.equal(layer.weight.data, weight)
        assert torch.equal(bases.dequantize(layer, torch.float32), dequantized)


def test_s26_left_to_itself_the_library_does_repack(tiny_models):
    import bitsandbytes.nn.modules as modules

    if not modules.has_avx512bf16():
        pytest.skip("the repacking kernels run on processors with AVX512-BF16 alone")
    base = opened(tiny_models("llama"))
    layer = quantized_layers(base.model)[0]
    before = bases.dequantize(layer, torch.float32)
    layer.support_avx512bf16_for_cpu = True
    logits(base)
    after = bases.dequantize(layer, torch.float32)
    assert not torch.equal(after, before), "the workaround is needed no longer: remove it"


def test_s26_an_evaluation_between_steps_changes_no_loss_and_blocks_no_gradient(tiny_models):
    losses = {}
    for evaluate in (False, True):
        base = opened(tiny_models("llama"))
        adapted = scorables.adapted(base, "lora")
        weights = {name: weight for name, weight in adapted.model.named_parameters() if weight.requires_grad}
        optimizer = torch.optim.AdamW(weights.values(), lr=1e-2)
        losses[evaluate] = []
        for _ in range(4):
            if evaluate:
                adapted.model.eval()
                logits(base)
            adapted.model.train()
            optimizer.zero_grad()
            loss = adapted.model(input_ids=BATCH, labels=BATCH).loss
            loss.backward()
            assert all(weight.grad is not None and weight.grad.any() for weight in weights.values())
            optimizer.step()
            losses[evaluate].append(loss.item())
    assert losses[True] == losses[False]


def test_dequantize_refuses_what_is_not_quantized():
    with pytest.raises(TypeError, match="Linear is not a quantized layer"):
        bases.dequantize(torch.nn.Linear(2, 2), torch.float32)


@pytest.mark.parametrize("bits", [4, 8])
def test_f19_without_bitsandbytes_the_install_line_is_told(bits, tiny_models, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "bitsandbytes")
    monkeypatch.setattr("builtins.__import__", _without_bitsandbytes(__import__))
    with pytest.raises(MachineError, match=r"pip install 'bitsandbytes.*base\.quantization\.bits: 16") as told:
        opened(tiny_models("llama"), Quantization(bits))
    assert told.value.exit_code == 3


def _without_bitsandbytes(real):
    def refuse(name, *arguments, **options):
        if name.partition(".")[0] == "bitsandbytes":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *arguments, **options)

    return refuse


def test_f19_flash_attention_that_is_missing_is_told(tiny_models, monkeypatch):
    monkeypatch.setattr(bases, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="pip install flash-attn"):
        opened(tiny_models("llama"), attention="flash_attention_2")


def test_x4_no_kernel_is_fetched_and_no_compiler_imported_with_bitsandbytes(tmp_path):
    (tmp_path / "kernels.py").write_text(
        "def __getattr__(name):\n    raise SystemExit(f'kernels.{name} was asked for')\n"
    )
    script = (
        "import sys, importlib.machinery, os\n"
        "import inlay.tuner.training, torch\n"
        "import bitsandbytes.backends.cpu.ops\n"
        "compiler = 'torch._inductor.compile_fx' in sys.modules\n"
        "print(os.environ['USE_HUB_KERNELS'], 'kernels' in sys.modules, compiler, torch.compile.__module__)"
    )
    path = [str(tmp_path), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{script}"], capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == ("0 False False torch\n", 0), done.stderr


def test_weights_of_another_shape_are_an_error(tiny_models, tmp_path):
    import json
    import shutil

    folder = shutil.copytree(tiny_models("llama"), tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    with pytest.raises(RequestError, match="its shape is not config"):
        opened(folder, Quantization(32))
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(RequestError, match=r"lack `model\.layers\.2\..*and 8 more"):
        opened(folder, Quantization(32))
