"""OFT: what enters a linear layer is rotated by a trained block-diagonal orthogonal matrix.

    y = W R x       R = diag(R_1, ..., R_k), R_i = (I + Q_i)(I - Q_i)^-1, Q_i skew-symmetric, W: out x in (frozen)

Rotations keep the angles between the rows of W. The Q_i start at zero, so the first forward pass is the base's. As in
its second version, inputs are rotated rather than weights, which leaves a quantized W alone, and the inverse is the
first terms of its Neumann series unless `use_cayley_neumann` is false.
Source: Qiu et al. 2023, "Controlling Text-to-Image Diffusion by Orthogonal Finetuning", arXiv:2306.07280, section 3;
Qiu et al. 2025, "Orthogonal Finetuning Made Scalable", arXiv:2506.19847.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from inlay.adapters import Linear
from inlay.adapters._linear import OnLinear


class Oft(OnLinear):
    """Trained rotations of inputs; mergeable."""

    title: ClassVar[str] = "OFT"
    paper: ClassVar[str] = "Qiu et al. 2023, arXiv:2306.07280"
    learning_rate: ClassVar[float] = 4e-4
    peft_type: ClassVar[str] = "OFT"
    size: ClassVar[str] = "oft_block_size"
    sizes: ClassVar[Sequence[int]] = range(2, 257)
    saved: ClassVar[tuple[str, ...]] = (
        "oft_block_size",
        "block_share",
        "use_cayley_neumann",
        "num_cayley_neumann_terms",
        "target_modules",
    )

    class Options(OnLinear.Options):
        """Options of OFT."""

        oft_block_size: int = Field(
            32, ge=2, le=4096, description="side of a block; divides the inputs of every target"
        )
        module_dropout: float = Field(0.0, ge=0, lt=1, description="share of blocks that do not rotate while training")
        block_share: bool = Field(False, description="one rotation for all blocks of a layer")
        use_cayley_neumann: bool = Field(True, description="a series instead of the exact inverse")
        num_cayley_neumann_terms: int = Field(5, ge=2, le=32, description="terms of that series")

    options: Options

    def misfit(self, layer: Linear) -> str | None:
        size, inputs = self.options.oft_block_size, layer.in_features
        return f"oft_block_size {size} does not divide its {inputs} inputs" if inputs % size else None

    def weights(self, layer: Linear) -> int:
        size = self.options.oft_block_size
        blocks = 1 if self.options.block_share else layer.in_features // size
        return blocks * size * (size - 1) // 2
