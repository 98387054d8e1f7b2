"""What is kept beside a 4-bit base for speed: the same numbers to the bit, and only where memory is plentiful."""

from __future__ import annotations

import pytest
import torch
from scorables import adapted as adapted_by
from scorables import opened

from inlay.tuner import base as bases
from inlay.tuner import meter, plain_weights
from inlay.tuner.plain_weights import with_plain_weights
from inlay.tuner.quantization import compute_in
from inlay.tuner.weights import fingerprint

BATCH = torch.tensor([[3, 5, 8, 13, 21, 34], [7, 7, 9, 11, 2, 40]])


def trained(base, method: str) -> tuple[list[float], dict[str, torch.Tensor], torch.Tensor]:
    """Losses, adapter and logits after a few steps with an evaluation between two."""
    adapted = adapted_by(base, method)
    inputs = {"input_ids": BATCH, "labels": BATCH}
    optimizer = torch.optim.AdamW([w for w in adapted.model.parameters() if w.requires_grad], lr=1e-2)
    losses = []
    torch.manual_seed(0)  # GPT-2 drops out
    for _ in range(3):
        adapted.model.train()
        loss = adapted.model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        adapted.model.eval()
        with torch.no_grad():
            logits = adapted.model(**inputs).logits
    return losses, adapted.state(), logits


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "prefix", "bottleneck"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
def test_training_and_logits_are_the_same_to_the_bit(shape, dtype, method, tiny_models):
    losses, state, logits = trained(opened(tiny_models(shape), 4, dtype), method)
    base = with_plain_weights(opened(tiny_models(shape), 4, dtype))
    calls = []
    for layer in filter(bases.is_quantized, base.model.modules()):
        layer.register_forward_hook(lambda *_: calls.append("forward" in vars(_[0])))
    found = trained(base, method)
    assert found[0] == losses
    assert torch.equal(found[2], logits)
    assert all(torch.equal(found[1][name], tensor) for name, tensor in state.items())
    assert calls
    assert all(calls)


def test_the_quantized_weights_stay_what_the_base_is(tiny_models):
    alone = opened(tiny_models("llama"), 4)
    base = with_plain_weights(opened(tiny_models("llama"), 4))
    assert (base.bytes, alone.plain_bytes) == (alone.bytes, 0)
    weights = sum(layer.in_features * layer.out_features for layer in base.facts.linears.values())
    assert base.plain_bytes == 4 * weights
    assert fingerprint(base.model) == fingerprint(alone.model)
    assert base.model.state_dict().keys() == alone.model.state_dict().keys()


def test_a_model_that_computes_in_another_dtype_since_does_so(tiny_models):
    bases_ = [opened(tiny_models("llama"), 4, "bf16"), with_plain_weights(opened(tiny_models("llama"), 4, "bf16"))]
    for base in bases_:
        compute_in(base.model, torch.float32)
    with torch.no_grad():
        one, two = (base.model(BATCH).logits for base in bases_)
    assert one.dtype == torch.float32
    assert torch.equal(one, two)


@pytest.mark.parametrize(("bits", "free"), [(4, 0.9), (4, None), (8, 100.0), (16, 100.0)])
def test_nothing_is_kept_where_memory_is_short_or_nothing_is_gained(bits, free, tiny_models, monkeypatch):
    base = opened(tiny_models("llama"), bits, "auto" if bits > 4 else "fp32")
    weights = sum(layer.in_features * layer.out_features for layer in base.facts.linears.values())
    needed = 4 * weights / plain_weights.SHARE
    monkeypatch.setattr(plain_weights, "free_memory", lambda: None if free is None else int(free * needed))
    assert with_plain_weights(base) is base
    assert not any("forward" in vars(layer) for layer in base.model.modules())


def test_free_memory_is_what_a_container_allows(tmp_path, monkeypatch):
    group, system = tmp_path / "group", tmp_path / "meminfo"
    group.mkdir()
    system.write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    monkeypatch.setattr(meter, "_MEMORY", system)
    monkeypatch.setattr(meter, "_GROUP", group)
    assert meter.free_memory() == 4000 * 1024
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("3000000\n")
    (group / "memory.stat").write_text("anon 2000000\ninactive_file 500000\n")
    assert meter.free_memory() == 4000 * 1024
    (group / "memory.max").write_text("3500000\n")
    assert meter.free_memory() == 1_000_000
    system.unlink()
    assert meter.free_memory() is None
