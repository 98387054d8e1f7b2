"""SHiRA: a sparse update, a few numbers at random places of the weight matrix.

    y = (W + S) x       S: out x in, zero but for r (in + out) places, W: out x in (frozen)

As many numbers train as in LoRA of rank r, but the update is not of low rank. The places are drawn from `random_seed`,
the same in every run that does not say otherwise, and saved. In every pass W is dequantized and W + S rounded to the
dtype that the base computes in, as a merge would round it. S starts at zero, so the first forward pass is the base's.
Source: Bhardwaj et al. 2024, "Sparse High Rank Adapters", arXiv:2406.13175, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from inlay.adapters import Facts, Linear, Training
from inlay.adapters._linear import OnLinear


class Shira(OnLinear):
    """A sparse update at random places; mergeable."""

    title: ClassVar[str] = "SHiRA"
    paper: ClassVar[str] = "Bhardwaj et al. 2024, arXiv:2406.13175"
    learning_rate: ClassVar[float] = 3e-4
    peft_type: ClassVar[str] = "SHIRA"
    size: ClassVar[str] = "r"
    sizes: ClassVar[Sequence[int]] = range(1, 4097)
    saved: ClassVar[tuple[str, ...]] = ("r", "random_seed", "target_modules")

    class Options(OnLinear.Options):
        """Options of SHiRA."""

        r: int = Field(16, ge=1, le=4096, description="as many numbers train as in LoRA of this rank")
        random_seed: int = Field(0, ge=0, description="seed of the places")

    options: Options

    def refusal(self, facts: Facts, training: Training) -> str | None:
        if facts.bits == 8:
            return f"{self.title} adds to the weights themselves, which an 8-bit layer cannot; use 4 or 16 bits"
        return super().refusal(facts, training)

    def misfit(self, layer: Linear) -> str | None:
        if self.weights(layer) <= layer.in_features * layer.out_features:
            return None
        return f"r {self.options.r} asks for {self.weights(layer)} places in {layer.in_features} x {layer.out_features}"

    def weights(self, layer: Linear) -> int:
        return self.options.r * (layer.in_features + layer.out_features)
