"""LoKr: the factors' sides are those that PEFT chooses."""

from __future__ import annotations

import pytest
from peft.tuners.lokr.layer import factorization

from inlay.adapters import Linear
from inlay.adapters.lokr import Lokr, split


@pytest.mark.parametrize("factor", [-1, 1, 3, 4, 8, 16, 100])
def test_sides_are_split_as_peft_splits_them(factor):
    for side in (1, 2, 7, 64, 96, 100, 127, 576, 768, 1000, 1536, 2048, 4096, 11008, 49152):
        assert split(side, factor) == factorization(side, factor), side


def test_the_count_of_a_known_layer():
    """768 x 3072: the sides are 24 x 32 and 48 x 64; a full matrix of 24 x 48, and rank 8 for 32 x 64."""
    layer = Linear(in_features=3072, out_features=768)
    assert Lokr(Lokr.Options()).weights(layer) == 24 * 48 + 8 * (32 + 64)
