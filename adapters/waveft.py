"""WaveFT: a trained update given by a few of its wavelet coefficients.

    y = W x + scaling * IDWT(C) x       C: out x in, zero but for n_frequency places, W: out x in (frozen)

The places are drawn from `random_loc_seed`, the same in every run that does not say otherwise, and shared by layers of
one shape. C starts at zero, so the first forward pass is the base's.
Source: Bilican et al. 2025, "Exploring Sparsity for Parameter Efficient Fine Tuning Using Wavelets", arXiv:2505.12532,
section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from inlay.adapters import Linear
from inlay.adapters._linear import OnLinear


class Waveft(OnLinear):
    """Sparse wavelet coefficients as update; mergeable."""

    title: ClassVar[str] = "WaveFT"
    paper: ClassVar[str] = "Bilican et al. 2025, arXiv:2505.12532"
    learning_rate: ClassVar[float] = 1e-3
    convertible: ClassVar[bool] = True
    peft_type: ClassVar[str] = "WAVEFT"
    size: ClassVar[str] = "n_frequency"
    sizes: ClassVar[Sequence[int]] = range(1, 1_000_001)
    saved: ClassVar[tuple[str, ...]] = ("n_frequency", "scaling", "wavelet_family", "random_loc_seed", "target_modules")

    class Options(OnLinear.Options):
        """Options of WaveFT."""

        n_frequency: int = Field(1000, ge=1, description="wavelet coefficients that train in each layer")
        scaling: float = Field(25.0, gt=0, description="factor on the update")
        wavelet_family: Literal["db1", "db2", "db4", "sym4", "coif1"] = Field(
            "db1", description="db1 is Haar's wavelet"
        )
        random_loc_seed: int = Field(777, ge=0, description="seed of the places of the coefficients")

    options: Options

    def misfit(self, layer: Linear) -> str | None:
        count, places = self.options.n_frequency, layer.in_features * layer.out_features
        return f"n_frequency {count} is above its {places} coefficients" if count > places else None

    def weights(self, layer: Linear) -> int:
        return self.options.n_frequency
