"""HiRA: a trained update that is the elementwise product of the frozen weight and a low-rank matrix.

    y = W x + (W * (B A)) x     A: r x in, B: out x r, W: out x in (frozen), *: elementwise

The product has the rank of W, up to r times. B starts at zero, so the first forward pass is the base's. On a 4-bit
base W is dequantized in every pass.
Source: Huang et al. 2025, "HiRA: Parameter-Efficient Hadamard High-Rank Adaptation for Large Language Models", ICLR,
section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from inlay.adapters import Linear
from inlay.adapters._linear import OnLinear


class Hira(OnLinear):
    """An update of high rank, shaped by the frozen weight; mergeable."""

    title: ClassVar[str] = "HiRA"
    paper: ClassVar[str] = "Huang et al. 2025, ICLR"
    learning_rate: ClassVar[float] = 4.5e-3
    peft_type: ClassVar[str] = "HIRA"
    size: ClassVar[str] = "r"
    sizes: ClassVar[Sequence[int]] = range(1, 4097)
    saved: ClassVar[tuple[str, ...]] = ("r", "target_modules")

    class Options(OnLinear.Options):
        """Options of HiRA."""

        r: int = Field(32, ge=1, le=4096, description="rank of the matrix that the weight is multiplied by")
        hira_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the update's input while training")

    options: Options

    def weights(self, layer: Linear) -> int:
        return self.options.r * (layer.in_features + layer.out_features)
