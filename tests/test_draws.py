"""What a reply is drawn from, beside transformers' own narrowing."""

from __future__ import annotations

import pytest
import torch

from inlay.eval import Decoding, MeasurementError
from inlay.eval.several import Writing, _drawn, _InHand, _likeliest


def test_draws_follow_the_narrowed_distribution():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -9.0])
    generator = torch.Generator().manual_seed(0)
    decoding = Decoding(do_sample=True, temperature=2.0, top_k=3)
    counts = torch.zeros(5)
    for _ in range(4000):
        counts[_drawn(logits, decoding, generator)] += 1
    expected = (logits[:3] / 2).softmax(-1)
    assert counts[3:].sum() == 0
    assert torch.allclose(counts[:3] / 4000, expected, atol=0.03)
    narrow = Decoding(do_sample=True, top_p=0.6)
    assert {_drawn(logits, narrow, generator) for _ in range(50)} == {0}


@pytest.mark.parametrize("spread", [0.1, 3.0])  # the flat one needs more than the tokens that are looked at first
@pytest.mark.parametrize("narrowing", [{"top_p": 0.9}, {"top_k": 40}, {"top_k": 40, "top_p": 0.5}, {"top_p": 1e-9}])
def test_draws_are_narrowed_as_by_transformers(narrowing, spread):
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    scores = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * spread
    expected = scores[None]
    if "top_k" in narrowing:
        expected = TopKLogitsWarper(narrowing["top_k"])(None, expected)
    if "top_p" in narrowing:
        expected = TopPLogitsWarper(narrowing["top_p"])(None, expected)
    found = _likeliest(scores, Decoding(do_sample=True, **narrowing))
    assert sorted(found.tolist()) == expected[0].isfinite().nonzero().flatten().tolist()


def test_a_temperature_too_small_to_divide_by_takes_the_likeliest():
    logits = torch.tensor([1.0, 60.0, 60.0, -9.0])
    for temperature in (1e-300, 5e-324, 1e-6):
        decodings = [Decoding(do_sample=True, temperature=temperature, seed=seed) for seed in range(9)]
        held = [_InHand(Writing((5,), decoding, bool, print)) for decoding in decodings]
        assert {one.chosen(logits, likeliest=1) for one in held} == {1}, "the first of two that are as likely"


def test_what_is_no_number_is_not_drawn_from():
    logits = torch.tensor([1.0, torch.nan])
    with pytest.raises(MeasurementError, match="not finite"):
        _drawn(logits, Decoding(do_sample=True), torch.Generator())
