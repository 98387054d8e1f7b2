"""LLaMA-Adapter: PEFT reads what is saved, its equation, and the bases that it does not fit."""

from __future__ import annotations

import dataclasses
import math

import method_cases
import pytest
import torch
from method_cases import Case, logits, train
from peft import PeftModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from inlay.adapters import Linear, Training
from inlay.adapters.llama_adapter import LlamaAdapter

PLAIN = Training(gradient_checkpointing=False)


@pytest.fixture(scope="session")
def open_base(tiny_models):
    return method_cases.opening(tiny_models)


def made(open_base, bits, **options):
    case = Case("llama_adapter", tuple(options.items()), "llama", bits)
    opened = open_base(case)
    adapted = case.method.attach(opened.model, opened.facts, seed=0, steps=50)
    train(case, adapted, 4)
    return case, adapted


@pytest.mark.parametrize("bits", [4, 32])
def test_peft_loads_what_was_saved(bits, open_base, tmp_path):
    case, adapted = made(open_base, bits, adapter_len=4)
    adapted.save(tmp_path)
    loaded = PeftModel.from_pretrained(open_base(case).model, tmp_path)
    assert torch.equal(logits(case, loaded), logits(case, adapted.model))


def test_attention_is_the_papers_equation(open_base):
    """One layer, by hand, head by head: what is added is W_O of the gated softmax over the prompts."""
    _, adapted = made(open_base, 32, adapter_len=4)
    layer = adapted.inner.model.layers[1].self_attn
    attention, size = layer.model, layer.model.head_dim
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(2, 5, 64, generator=draw)
    cos, sin = adapted.inner.model.rotary_emb(hidden, torch.arange(5)[None])
    with torch.no_grad():
        plain = attention(hidden, position_embeddings=(cos, sin), attention_mask=None)[0]
        found = layer(hidden_states=hidden, position_embeddings=(cos, sin), attention_mask=None)[0] - plain
        queries = attention.q_proj(hidden).view(2, 5, 4, size).transpose(1, 2)
        queries, _ = apply_rotary_pos_emb(queries, queries, cos, sin)
        prompt = layer.adaption_prompt[0]
        keys, values = (part(prompt).view(4, 2, size) for part in (attention.k_proj, attention.v_proj))
        heads = []
        for head in range(4):  # two heads share a key
            weights = torch.softmax(queries[:, head] @ keys[:, head // 2].T / math.sqrt(size), -1)
            heads.append(layer.adaption_gate * weights @ values[:, head // 2])
        expected = attention.o_proj(torch.cat(heads, -1))
    assert layer.adaption_gate != 0
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_upper_layers_are_adapted(open_base):
    facts = open_base(Case("llama_adapter", (), "llama", 4)).facts
    chosen = LlamaAdapter(LlamaAdapter.Options(adapter_layers=1))
    assert chosen.targets(facts) == ("model.layers.1.self_attn",)
    more = LlamaAdapter(LlamaAdapter.Options(adapter_layers=3))
    assert more.refusal(facts, PLAIN) == "adapter_layers is 3, and this base has 2 layers"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bits": 16}, "16-bit weights"),
        ({"output": Linear(128, 64)}, "128 of 64 dimensions"),
        ({"output": Linear(64, 64, bias=True)}, "a bias"),
    ],
)
def test_a_llama_that_pefts_layer_computes_wrongly_is_refused(change, words, open_base):
    facts = open_base(Case("llama_adapter", (), "llama", 4)).facts
    if "output" in change:
        outputs = {name: change["output"] for name in facts.linears if name.endswith("o_proj")}
        change = {"linears": {**facts.linears, **outputs}}
    reason = LlamaAdapter(LlamaAdapter.Options()).refusal(dataclasses.replace(facts, **change), PLAIN)
    assert words in reason
