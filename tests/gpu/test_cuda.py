"""What only a CUDA device can show. Run with `pytest -m gpu`; elsewhere these tests are left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from inlay import adapters
from inlay.eval.likelihood import score_answers
from inlay.eval.scoring import Scorable
from inlay.tuner.base import Quantization, open_base, read_config, read_facts, read_tokenizer
from inlay.tuner.model_files import locate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
SHAPES = ("llama", "gpt2", "t5")


def opened(folder: Path, quantization: Quantization, method=None):
    files = locate(str(folder))
    facts = read_facts(read_config(files), quantization.bits)
    floats = method.targets(facts) if method and method.needs_float_weights else ()
    return open_base(files, quantization, facts, read_tokenizer(files), float_targets=floats)


def batch(base, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 300, (4, 24), generator=generator).to(base.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**inputs, "decoder_input_ids": ids} if base.facts.kind == "seq2seq" else inputs, ids


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_base_loads_on_cuda_in_every_width(tiny_models, shape, bits):
    base = opened(tiny_models(shape), Quantization(bits=bits))
    inputs, _ = batch(base)
    assert base.device == "cuda:0"
    assert torch.isfinite(base.model(**inputs).logits).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [name for name in adapters.names() if name != "none"])
def test_method_trains_on_4_bit_and_reloads(tiny_models, tmp_path, name, shape):
    method = adapters.find(name)(adapters.find(name).Options())
    base = opened(tiny_models(shape), Quantization(), method)
    adapted = method.attach(base.model, base.facts, seed=0, steps=50)
    inputs, ids = batch(base)
    trainable = [p for p in adapted.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2)
    losses = []
    for _ in range(5):
        logits = adapted.model(**inputs).logits[:, -ids.shape[1] :]
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        assert all(p.grad is not None for p in trainable)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    adapted.model.eval()
    with torch.no_grad():
        expected = adapted.model(**inputs).logits
    adapted.save(tmp_path / "adapter")
    fresh = opened(tiny_models(shape), Quantization(), method)
    loaded = method.load(tmp_path / "adapter", fresh.model, fresh.facts)
    loaded.model.eval()
    with torch.no_grad():
        assert torch.equal(loaded.model(**inputs).logits, expected)


def test_likelihoods_agree_with_the_cpu(tiny_models, monkeypatch):
    pairs = [([5, 6, 7, 8], [9, 10, 11]), ([12, 13], [14, 15, 16, 17, 18])]
    quantization = Quantization(compute_dtype="fp32")
    cuda = opened(tiny_models("llama"), quantization)
    on_cuda = score_answers(Scorable(cuda.model, cuda.model, "causal", "nothing", 1), pairs, batch_size=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cpu = opened(tiny_models("llama"), quantization)
    on_cpu = score_answers(Scorable(cpu.model, cpu.model, "causal", "nothing", 1), pairs, batch_size=2)
    assert on_cuda == pytest.approx(on_cpu, rel=1e-3)


def test_quickstart_runs_on_cuda(tmp_path):
    import inlay

    folder = inlay.run("quickstart", output=tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "complete"
    assert "cpu" not in record["environment"]["device"].lower()
    assert record["metrics"]["change"]["rougeL"]["verdict"] == "better"
