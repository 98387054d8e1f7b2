"""LoHa: a trained update that is the elementwise product of two low-rank matrices.

    y = W x + (alpha / r) ((A1 B1) * (A2 B2)) x         A: out x r, B: r x in, W: out x in (frozen), *: elementwise

The product of two matrices of rank r has a rank of up to r^2. B2 starts at zero, so the first forward pass is the
base's. The whole update is computed in every pass, so the target layers are dequantized.
Source: Hyeon-Woo et al. 2022, "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning",
arXiv:2108.06098, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from inlay.adapters import Linear
from inlay.adapters._linear import OnLinear


class Loha(OnLinear):
    """An elementwise product of two low-rank updates; mergeable."""

    title: ClassVar[str] = "LoHa"
    paper: ClassVar[str] = "Hyeon-Woo et al. 2022, arXiv:2108.06098"
    learning_rate: ClassVar[float] = 1e-3
    convertible: ClassVar[bool] = True
    peft_type: ClassVar[str] = "LOHA"
    size: ClassVar[str] = "r"
    sizes: ClassVar[Sequence[int]] = range(1, 4097)
    saved: ClassVar[tuple[str, ...]] = ("r", "alpha", "target_modules")
    needs_float_weights: ClassVar[bool] = True

    class Options(OnLinear.Options):
        """Options of LoHa."""

        r: int = Field(8, ge=1, le=4096, description="rank of each of the two factors")
        alpha: float = Field(8, gt=0, description="the update is scaled by alpha / r")
        rank_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on rows of the update while training")
        module_dropout: float = Field(0.0, ge=0, lt=1, description="share of passes without a layer's update")

    options: Options

    def weights(self, layer: Linear) -> int:
        return 2 * self.options.r * (layer.in_features + layer.out_features)
