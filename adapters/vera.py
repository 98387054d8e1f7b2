"""VeRA: LoRA with random frozen matrices that all layers share; only two vectors a layer train.

    y = W x + b * (B (d * (A x)))       A: r x in, B: out x r (frozen, random), d: r, b: out, *: elementwise

A and B are as large as the largest layer and cut to each layer's shape. They are drawn from the seed and saved with
the vectors. b starts at zero, so the first forward pass is the base's.
Source: Kopiczko et al. 2024, "VeRA: Vector-based Random Matrix Adaptation", arXiv:2310.11454, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from inlay.adapters import Facts, Linear
from inlay.adapters._linear import OnLinear


class Vera(OnLinear):
    """Trained scales of a random low-rank update; mergeable."""

    title: ClassVar[str] = "VeRA"
    paper: ClassVar[str] = "Kopiczko et al. 2024, arXiv:2310.11454"
    learning_rate: ClassVar[float] = 4e-3
    convertible: ClassVar[bool] = True
    peft_type: ClassVar[str] = "VERA"
    size: ClassVar[str] = "r"
    sizes: ClassVar[Sequence[int]] = range(1, 65537)
    saved: ClassVar[tuple[str, ...]] = ("r", "target_modules")
    fresh: ClassVar[tuple[str, ...]] = ("d_initial",)

    class Options(OnLinear.Options):
        """Options of VeRA."""

        r: int = Field(256, ge=1, le=65536, description="rank of the random update")
        vera_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the input of A while training")
        d_initial: float = Field(0.1, description="every number in d at the start")

    options: Options

    def weights(self, layer: Linear) -> int:
        return self.options.r + layer.out_features

    def _fields(self, facts: Facts, seed: int) -> dict[str, object]:
        return super()._fields(facts, seed) | {"projection_prng_key": seed}
