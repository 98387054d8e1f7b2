"""FourierFT: a trained update given by a few of its frequencies.

    y = W x + scaling * real(inverse DFT of F) x        F: out x in, zero but for n_frequency places, W: frozen

The places are drawn from `random_loc_seed`, the same in every run that does not say otherwise, and shared by layers of
one shape. F starts at zero here, so that the first forward pass is the base's (the paper draws it, which on a small
layer is a large change: the inverse transform divides by in * out only).
Source: Gao et al. 2024, "Parameter-Efficient Fine-Tuning with Discrete Fourier Transform", arXiv:2405.03003, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from inlay.adapters import Facts, Linear
from inlay.adapters._linear import OnLinear


class Fourierft(OnLinear):
    """A sparse spectrum as update; mergeable."""

    title: ClassVar[str] = "FourierFT"
    paper: ClassVar[str] = "Gao et al. 2024, arXiv:2405.03003"
    learning_rate: ClassVar[float] = 3e-2
    convertible: ClassVar[bool] = True
    peft_type: ClassVar[str] = "FOURIERFT"
    size: ClassVar[str] = "n_frequency"
    sizes: ClassVar[Sequence[int]] = range(1, 1_000_001)
    saved: ClassVar[tuple[str, ...]] = ("n_frequency", "scaling", "random_loc_seed", "target_modules")

    class Options(OnLinear.Options):
        """Options of FourierFT."""

        n_frequency: int = Field(1000, ge=1, description="frequencies that train in each layer")
        scaling: float = Field(150.0, gt=0, description="factor on the update")
        random_loc_seed: int = Field(777, ge=0, description="seed of the places of the frequencies")

    options: Options

    def misfit(self, layer: Linear) -> str | None:
        count, places = self.options.n_frequency, layer.in_features * layer.out_features
        return f"n_frequency {count} is above its {places} frequencies" if count > places else None

    def weights(self, layer: Linear) -> int:
        return self.options.n_frequency

    def _fields(self, facts: Facts, seed: int) -> dict[str, object]:
        return super()._fields(facts, seed) | {"init_weights": True}
