"""RandLoRA: a full-rank update, the sum of random frozen low-rank products that trained diagonal matrices scale.

    y = W x + (randlora_alpha / r) sum_j B_j diag(l_j) A diag(g_j) x        j = 1, ..., ceil(min(in, out) / r)

A (r x the smaller side) and the B_j (the larger side x r) are random, frozen and shared by all layers, cut to each
layer's shape; l_j (r numbers) and g_j (one number for each of the smaller side) train. The random matrices are drawn
from the seed and saved with the rest. The l_j start at zero, so the first forward pass is the base's.
Source: Albert et al. 2025, "RandLoRA: Full-rank parameter-efficient fine-tuning of large models", arXiv:2502.00987,
section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from inlay.adapters import Facts, Linear
from inlay.adapters._linear import OnLinear


class Randlora(OnLinear):
    """Trained scales of a full-rank random update; mergeable."""

    title: ClassVar[str] = "RandLoRA"
    paper: ClassVar[str] = "Albert et al. 2025, arXiv:2502.00987"
    learning_rate: ClassVar[float] = 1e-4
    convertible: ClassVar[bool] = True
    peft_type: ClassVar[str] = "RANDLORA"
    size: ClassVar[str] = "r"
    sizes: ClassVar[Sequence[int]] = range(1, 257)
    saved: ClassVar[tuple[str, ...]] = ("r", "randlora_alpha", "target_modules")

    class Options(OnLinear.Options):
        """Options of RandLoRA."""

        r: int = Field(32, ge=1, le=4096, description="rank of each random product: a smaller one trains more weights")
        randlora_alpha: int = Field(640, ge=1, description="the update is scaled by randlora_alpha / r")
        randlora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the update's input while training")

    options: Options

    def weights(self, layer: Linear) -> int:
        smaller = min(layer.in_features, layer.out_features)
        return math.ceil(smaller / self.options.r) * (self.options.r + smaller)

    def _fields(self, facts: Facts, seed: int) -> dict[str, object]:
        return super()._fields(facts, seed) | {"projection_prng_key": seed}
