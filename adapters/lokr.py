"""LoKr: a trained update that is the Kronecker product of a small matrix and a larger one, the larger of low rank.

    y = W x + (alpha / r) (C kron (A B)) x      C: l x m, A: k x r, B: r x n, W: out x in (frozen), l k = out, m n = in

The sides are split as evenly as their divisors allow, or by `decompose_factor`. C starts at zero, so the first forward
pass is the base's. Where r is at least half of the larger of k and n, A B is one full matrix; with `decompose_both` C
is of rank r too. The whole update is computed in every pass, so the target layers are dequantized.
Source: Yeh et al. 2024, "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation",
arXiv:2309.14859, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, field_validator

from inlay.adapters import Linear
from inlay.adapters._linear import OnLinear


class Lokr(OnLinear):
    """A Kronecker product as update; mergeable."""

    title: ClassVar[str] = "LoKr"
    paper: ClassVar[str] = "Yeh et al. 2024, arXiv:2309.14859"
    learning_rate: ClassVar[float] = 3e-3
    convertible: ClassVar[bool] = True
    peft_type: ClassVar[str] = "LOKR"
    size: ClassVar[str] = "r"
    sizes: ClassVar[Sequence[int]] = range(1, 257)
    saved: ClassVar[tuple[str, ...]] = ("r", "alpha", "decompose_both", "decompose_factor", "target_modules")
    needs_float_weights: ClassVar[bool] = True

    class Options(OnLinear.Options):
        """Options of LoKr."""

        r: int = Field(8, ge=1, le=4096, description="rank of the larger factor")
        alpha: float = Field(8, gt=0, description="the update is scaled by alpha / r")
        decompose_both: bool = Field(False, description="give the smaller factor rank r as well")
        decompose_factor: int = Field(-1, description="one side of the smaller factor; -1: as near to square as can be")
        rank_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on rows of the update while training")
        module_dropout: float = Field(0.0, ge=0, lt=1, description="share of passes without a layer's update")

        @field_validator("decompose_factor")
        @classmethod
        def _is_a_divisor(cls, value: int) -> int:
            if value < 1 and value != -1:
                raise ValueError("decompose_factor is -1 or a positive number")
            return value

    options: Options

    def weights(self, layer: Linear) -> int:
        r, factor = self.options.r, self.options.decompose_factor
        small, large = zip(split(layer.out_features, factor), split(layer.in_features, factor), strict=True)
        full_small = not self.options.decompose_both or 2 * r >= max(small)
        full_large = 2 * r >= max(large)
        count = math.prod(small) if full_small else r * sum(small)
        return count + (math.prod(large) if full_large else r * sum(large))


def split(side: int, factor: int) -> tuple[int, int]:
    """The sides of the two factors of a Kronecker product of this side: `factor` first where it divides the side, else
    the divisor nearest to the square root from below, and not above a positive `factor`."""
    if factor > 0 and side % factor == 0:
        return factor, side // factor
    limit = min(math.isqrt(side), factor if factor > 0 else side)
    small = next(divisor for divisor in range(limit, 0, -1) if side % divisor == 0)
    return small, side // small
