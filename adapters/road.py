"""RoAd: pairs of a layer's outputs are rotated and scaled in their plane.

    y = R (W x + c)     R: a 2 x 2 block for each pair, a (cos t, -sin t; sin t, cos t)     W, c: frozen

A group's first half is paired with its second. `road_1` trains one angle t and one scale a for each pair, `road_2` one
of each for each output, `road_4` for each of a block's four entries. Angles start at zero and scales at one, so the
first forward pass is the base's.
Source: Liao & Monz 2024, "3-in-1: 2D Rotary Adaptation for Efficient Finetuning, Efficient Batching and
Composability", arXiv:2409.00119, section 3.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from inlay.adapters import Linear
from inlay.adapters._linear import OnLinear


class Road(OnLinear):
    """Trained rotations of pairs of outputs; mergeable."""

    title: ClassVar[str] = "RoAd"
    paper: ClassVar[str] = "Liao & Monz 2024, arXiv:2409.00119"
    learning_rate: ClassVar[float] = 1e-3
    peft_type: ClassVar[str] = "ROAD"
    saved: ClassVar[tuple[str, ...]] = ("variant", "group_size", "target_modules")

    class Options(OnLinear.Options):
        """Options of RoAd."""

        variant: Literal["road_1", "road_2", "road_4"] = Field("road_1", description="how much of a block trains")
        group_size: int = Field(
            32, ge=2, multiple_of=2, description="outputs in a group; divides those of every target"
        )

    options: Options

    def misfit(self, layer: Linear) -> str | None:
        size = self.options.group_size
        return (
            f"group_size {size} does not divide its {layer.out_features} outputs" if layer.out_features % size else None
        )

    def weights(self, layer: Linear) -> int:
        return layer.out_features * {"road_1": 1, "road_2": 2, "road_4": 4}[self.options.variant]
