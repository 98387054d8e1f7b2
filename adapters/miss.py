"""MiSS: a trained update of which all stretches of r inputs share one matrix.

    y = W x + D (x_1 + x_2 + ...)       x_i: the stretches of r numbers that x is cut into, D: out x r

The sum costs almost nothing, and one matrix of the size of LoRA's B is all that trains. D starts at zero, so the first
forward pass is the base's.
Source: Kang & Yin 2024, "MiSS: Revisiting the Trade-off in LoRA with an Efficient Shard-Sharing Structure",
arXiv:2409.15371, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from inlay.adapters import Linear
from inlay.adapters._linear import OnLinear


class Miss(OnLinear):
    """An update with shared shards; mergeable."""

    title: ClassVar[str] = "MiSS"
    paper: ClassVar[str] = "Kang & Yin 2024, arXiv:2409.15371"
    learning_rate: ClassVar[float] = 2e-4
    convertible: ClassVar[bool] = True
    peft_type: ClassVar[str] = "MISS"
    size: ClassVar[str] = "r"
    sizes: ClassVar[Sequence[int]] = range(1, 65537)
    saved: ClassVar[tuple[str, ...]] = ("r", "target_modules")

    class Options(OnLinear.Options):
        """Options of MiSS."""

        r: int = Field(64, ge=1, le=65536, description="inputs in a stretch, and rank of the update")
        miss_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the update's input while training")

    options: Options

    def misfit(self, layer: Linear) -> str | None:
        return (
            f"r {self.options.r} is above its {layer.in_features} inputs"
            if self.options.r > layer.in_features
            else None
        )

    def weights(self, layer: Linear) -> int:
        return self.options.r * layer.out_features
