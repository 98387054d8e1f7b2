"""DoRA: the weight taken apart into a magnitude for each output and a direction, which LoRA changes.

    y = m (W + (alpha / r) B A) x / ||W + (alpha / r) B A||      ||.||: norm of each row, m: one number for each output

m starts as the norms of W's rows and B as zero, so the first forward pass is the base's. As in the paper, section 4.3,
the norm counts as a constant in the backward pass. On a 4-bit base W is dequantized for the norm.
PEFT would convert it to LoRA, but what it writes is B A alone: m is lost, and the update is another.
Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", arXiv:2402.09353, equation 5.
"""

from __future__ import annotations

from typing import ClassVar

from inlay.adapters import Linear
from inlay.adapters.lora import Lora


class Dora(Lora):
    """A low-rank update of directions and a trained magnitude; mergeable."""

    title: ClassVar[str] = "DoRA"
    paper: ClassVar[str] = "Liu et al. 2024, arXiv:2402.09353"
    convertible: ClassVar[bool] = False
    use_dora: ClassVar[bool] = True

    def weights(self, layer: Linear) -> int:
        return super().weights(layer) + layer.out_features
