"""Mix-and-match adapters (MAM): a short prefix on every attention and a parallel adapter on every feed-forward network.

    attention(Q, [P_K; K], [P_V; V])      y + s * (W_up f(W_down x + b_down) + b_up), x and y around the network

Each part is the method of that name, with its own start: see `prefix` and `bottleneck` (placement: parallel). Both are
saved in one file, in a form of this package's own.
Source: He et al. 2022, "Towards a Unified View of Parameter-Efficient Transfer Learning", arXiv:2110.04366,
section 4.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from inlay.adapters import Adapted, Facts, Training
from inlay.adapters._virtual import Virtual
from inlay.adapters.bottleneck import Bottleneck
from inlay.adapters.prefix import Prefix

if TYPE_CHECKING:
    from torch import nn


class Mam(Virtual):
    """Prefix tuning and a parallel bottleneck adapter together; neither mergeable nor under checkpointing."""

    title: ClassVar[str] = "MAM adapter"
    paper: ClassVar[str] = "He et al. 2022, arXiv:2110.04366"
    place: ClassVar[str] = "attention, feed-forward"
    learning_rate: ClassVar[float] = 1e-3
    size: ClassVar[str] = "bottleneck_size"
    sizes: ClassVar[Sequence[int]] = range(1, 65537)
    saved: ClassVar[tuple[str, ...]] = ("num_virtual_tokens", "bottleneck_size", "activation", "scaling")
    prepends: ClassVar[Literal["nothing", "tokens", "keys"]] = "keys"
    checkpointing: ClassVar[bool] = False

    class Options(Virtual.Options):
        """Options of both parts, of which the paper makes the prefix short and the adapter wide."""

        bottleneck_size: int = Field(64, ge=1, le=65536, description="dimensions between the adapter's two layers")
        activation: Literal["relu", "gelu", "silu", "tanh"] = Field("relu", description="f, between the two layers")
        scaling: float = Field(1.0, gt=0, description="s, the factor on what the adapter adds")
        dropout: float = Field(0.0, ge=0, lt=1, description="dropout between the two layers while training")

    options: Options

    @classmethod
    def made(cls, config: Mapping[str, object]) -> bool:
        return config.get("method") == "mam"

    @property
    def parts(self) -> tuple[Prefix, Bottleneck]:
        """The two methods."""
        options = self.options.model_dump()
        tokens = options.pop("num_virtual_tokens")
        return Prefix(Prefix.Options(num_virtual_tokens=tokens)), Bottleneck(
            Bottleneck.Options(placement="parallel", **options)
        )

    def targets(self, facts: Facts) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.targets(facts))

    def refusal(self, facts: Facts, training: Training) -> str | None:
        reasons = (part.refusal(facts, training) for part in self.parts)
        return super().refusal(facts, training) or next(filter(None, reasons), None)

    def trainable(self, facts: Facts) -> int:
        return sum(part.trainable(facts) for part in self.parts)

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        from inlay.adapters._mam import Mixed

        return Mixed.attach(*self.parts, model, facts, seed=seed, settled=self._settled())

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        from inlay.adapters._mam import Mixed

        return Mixed.load(*self.parts, folder, model, facts, settled=self._settled())

    def _settled(self) -> dict[str, object]:
        return {"method": "mam", **self.options.model_dump(include=set(self.saved))}
