"""What an export is held against: base and adapter, opened again, in arithmetic that rounds nothing but fp32."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from inlay import adapters
from inlay.eval import Decoding, Reply, Turn
from inlay.tuner.base import Quantization, open_base, read_config, read_facts, read_tokenizer
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.export import reference
from inlay.tuner.export.witness import Questions
from inlay.tuner.model_files import locate

EXAMPLES = (
    Reply("1", (Turn("user", "How is the sport 1?"),), ("It is good, 1.",)),
    Reply("2", (Turn("user", "Where is Anna? It rains."),), ("On Monday she comes.",)),
)


@pytest.fixture
def rounding(monkeypatch):
    """A kernel that computes in bf16 whatever it is given, in flash attention's place; a list of what it was asked."""
    seen = []

    def forward(module, query, key, value, *rest, **options):
        seen.append(query.shape)
        half = (part.bfloat16() for part in (query, key, value))
        found, weights = sdpa_attention_forward(module, *half, *rest, **options)
        return found.to(query.dtype), weights

    AttentionInterface.register("rounding", forward)
    AttentionMaskInterface.register("rounding", sdpa_mask)
    monkeypatch.setattr(reference, "FLASH", "rounding")
    return seen


@pytest.fixture
def ask(tiny_models, tmp_path):
    """A function (attention, likelihoods of the benchmark) -> what the reference says with an adapter."""
    files = locate(str(tiny_models("llama")))
    facts, tokenizer = read_facts(read_config(files), 32), read_tokenizer(files)
    method = adapters.find("lora")(adapters.find("lora").Options(r=4))
    held = Quantization(bits=32, compute_dtype="fp32")
    method.attach(open_base(files, held, facts, tokenizer).model, facts, seed=0, steps=1).save(tmp_path / "adapter")
    questions = Questions(
        kind="causal",
        examples=EXAMPLES,
        prompt_format="plain",
        around=("", ""),
        decoding=Decoding(max_new_tokens=4),
        batch_size=2,
        window=64,
        stride=32,
        compared=10**6,
    )

    def asked(attention: str, benchmarked=None) -> reference.proof.Reference:
        setting = SimpleNamespace(
            files=files,
            facts=facts,
            tokenizer=tokenizer,
            method=method,
            recipe=SimpleNamespace(base=SimpleNamespace(attention=attention)),
            quantization=held,
            renderer=Renderer(tokenizer, "causal"),
            pad_id=1,
        )
        return reference.question_reference(
            setting,
            tmp_path / "adapter",
            held,
            questions,
            dtype="bf16",
            beside=False,
            benchmarked=benchmarked or {},
            progress=lambda *_: None,
        )

    return asked


@pytest.mark.parametrize("here", [True, False])
def test_s25_a_reference_is_not_rounded_by_the_kernel_of_the_run(here, ask, rounding, monkeypatch):
    """The run's own kernel holds base and adapter to the benchmark where it runs here, and proves nothing."""
    plain = ask("sdpa")
    monkeypatch.setattr(reference, "_runs_here", lambda _: here)
    found = ask("rounding", {"1": plain.records[0].nll_nats})
    assert bool(rounding) == here
    assert found.benchmark_nll < 1e-3
    for ours, exact in zip(found.logits, plain.logits, strict=True):
        torch.testing.assert_close(ours, exact, atol=1e-6, rtol=0)
    assert found.floor.kl_mean == pytest.approx(plain.floor.kl_mean)
