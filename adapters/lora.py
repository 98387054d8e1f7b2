"""LoRA: a trained low-rank matrix beside each frozen linear layer.

    y = W x + (alpha / r) B A x        A: r x in, B: out x r, W: out x in (frozen)

B starts at zero, so the first forward pass is the base's. With `use_rslora` the factor is alpha / sqrt(r), which keeps
the size of the update independent of the rank (Kalajdzievski 2023, arXiv:2312.03732). With `init_lora_weights: pissa`
or `olora`, A and B start as a part of W, which a second, frozen pair takes off again (`_moved.py`); such an adapter is
saved as a plain LoRA of twice the rank, and trains on as one.
Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685, section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, field_validator

from inlay.adapters import Adapted, Facts, Linear
from inlay.adapters._linear import OnLinear

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor, nn

    Factors = Mapping[str, tuple[Tensor, Tensor]]

_DATA = "it is computed from training data, which a method here does not see"
STARTS_NOT_OFFERED = {
    "corda": _DATA,
    "eva": _DATA,
    "false": "B at random makes the first forward pass another than the base's",
    "loftq": "it replaces the quantized weights by others, so scores with and without the adapter are of two bases",
    "lora_ga": _DATA,
    "mica": "PEFT computes it from weights in floating point, which quantized layers do not hold",
    "orthogonal": "PEFT draws it in the dtype of the base's weights, which are integers on 4 bits",
    "pissa_niter": "its decomposition is drawn at random; use pissa",
}
"""Starts that PEFT knows, and why they are not offered."""
MOST = 4096
"""The largest rank, as saved."""

APART = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")
"""How PEFT combines adapters by their A and by their B, each apart: products of one's B and another's A come in."""
WHOLE = ("svd", "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
"""The same by their updates B A, of which the largest singular values are kept."""
COMBINATIONS = ("cat", *APART, *WHOLE)
"""All of PEFT's `combination_type`s; `cat` is the weighted sum of the updates, at the sum of the ranks."""


class Lora(OnLinear):
    """A low-rank update of linear layers; mergeable."""

    use_dora: ClassVar[bool] = False
    title: ClassVar[str] = "LoRA"
    paper: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685"
    learning_rate: ClassVar[float] = 2e-4
    convertible: ClassVar[bool] = True
    peft_type: ClassVar[str] = "LORA"
    size: ClassVar[str] = "r"
    sizes: ClassVar[Sequence[int]] = range(1, MOST + 1)
    saved: ClassVar[tuple[str, ...]] = ("r", "lora_alpha", "use_rslora", "target_modules")
    fresh: ClassVar[tuple[str, ...]] = ("init_lora_weights",)

    class Options(OnLinear.Options):
        """Options of LoRA."""

        r: int = Field(16, ge=1, le=MOST, description="rank of the update")
        lora_alpha: float = Field(32, gt=0, description="the update is scaled by lora_alpha / r")
        lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the input of A while training")
        use_rslora: bool = Field(False, description="scale by lora_alpha / sqrt(r) instead")
        init_lora_weights: Literal[True, "gaussian", "pissa", "olora"] = Field(
            True,
            description="A at the start: true as in a linear layer (uniform), gaussian with std 1 / r; or A and B from "
            "the base's weights: their largest singular values (pissa, slow on a large base), or Q and R (olora)",
        )

        @field_validator("init_lora_weights", mode="before")
        @classmethod
        def _start_keeps_the_base(cls, value: object) -> object:
            if reason := STARTS_NOT_OFFERED.get(str(value).lower().rstrip("0123456789").rstrip("_")):
                raise ValueError(f"init_lora_weights: {value} is not offered: {reason}")
            return value

    options: Options

    @classmethod
    def made(cls, config: Mapping[str, object]) -> bool:
        return super().made(config) and bool(config.get("use_dora")) == cls.use_dora

    @property
    def _moves(self) -> bool:
        """Whether A and B start as a part of the base's weights."""
        return self.options.init_lora_weights in ("pissa", "olora")

    def misfit(self, layer: Linear) -> str | None:
        most = min(layer.in_features, layer.out_features, MOST // 2)
        if self._moves and self.options.r > most:
            return f"r is {self.options.r}, and init_lora_weights: {self.options.init_lora_weights} has {most} at most"
        return None

    def weights(self, layer: Linear) -> int:
        return self.options.r * (layer.in_features + layer.out_features)

    def continued(self, facts: Facts) -> int:
        return self._as_saved().trainable(facts)

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        from inlay.adapters import _peft

        config = self._as_saved().lora_config(model, facts)
        if self._moves:
            from inlay.adapters._moved import STARTS, Moved

            return Moved.attach(config, STARTS[self.options.init_lora_weights], model, seed=seed)
        return _peft.attach(config, model, seed=seed)

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        from inlay.adapters import _peft

        return _peft.load(self._as_saved().lora_config(model, facts), folder, model)

    def _as_saved(self) -> Self:
        """This method, with the options that a saved adapter has: the frozen pair doubles the rank, at equal scale."""
        if not self._moves:
            return self
        r, scale = 2 * self.options.r, 2**0.5 if self.options.use_rslora else 2
        plain = {"r": r, "lora_alpha": scale * self.options.lora_alpha, "init_lora_weights": True}
        return type(self)(self.options.model_copy(update=plain))

    @property
    def scaling(self) -> float:
        """What B A is multiplied by."""
        options = self.options
        return options.lora_alpha / (options.r**0.5 if options.use_rslora else options.r)

    def lora_config(self, model: nn.Module, facts: Facts) -> LoraConfig:
        """PEFT's configuration of an adapter on this base.

        Args:
            model: how its layers store their weights is all that is read of it.
        """
        from peft import LoraConfig

        from inlay.adapters._peft import TASK_TYPES, stores_transposed

        targets = self.targets(facts)
        options = self.options
        return LoraConfig(
            task_type=TASK_TYPES[facts.kind],
            r=options.r,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            use_rslora=options.use_rslora,
            use_dora=self.use_dora,
            init_lora_weights=options.init_lora_weights,
            target_modules=list(targets),
            fan_in_fan_out=stores_transposed(model, targets),
        )


def write(folder: Path, factors: Factors, model: nn.Module, facts: Facts) -> Lora:
    """Writes an adapter of LoRA, as `Adapted.save` does, and returns its options.

    Args:
        factors: by layer, A (rank x in) and B (out x rank): the update is B A. Where the ranks differ, zeros fill up
            the smaller, since not every server reads a rank for each layer.
        model: the base; how its layers store their weights is all that is read of it.
    """
    from torch.nn.functional import pad

    from inlay.adapters._files import write_weights
    from inlay.adapters._peft import write_peft_config

    rank = max(len(a) for a, _ in factors.values())
    made = Lora(Lora.Options(r=rank, lora_alpha=rank, target_modules=tuple(factors)))
    tensors = {}
    for name, (a, b) in factors.items():
        missing = rank - len(a)
        tensors[f"base_model.model.{name}.lora_A.weight"] = pad(a, (0, 0, 0, missing))
        tensors[f"base_model.model.{name}.lora_B.weight"] = pad(b, (0, missing))
    write_weights(tensors, folder)
    write_peft_config(made.lora_config(model, facts), model, folder)
    return made


def combine(
    parts: Sequence[tuple[Lora, Path]],
    weights: Sequence[float],
    kind: str,
    model: nn.Module,
    facts: Facts,
    *,
    density: float | None = None,
    rank: int | None = None,
    seed: int = 0,
) -> Factors:
    """Several adapters as one, for `write`.

    Args:
        parts: each adapter's options and folder.
        kind: one of `COMBINATIONS`.
        model: the base, with plain linear layers; their weights are not read.
        density: the share of numbers that are kept, of all but `linear`, `cat` and `svd`.
        rank: of what a kind in `WHOLE` makes; the largest of the parts' by default.
        seed: of what DARE drops.

    Raises:
        ValueError: an adapter's files do not fit its options or the base.
    """
    from inlay.adapters import _combination

    return _combination.combine(parts, weights, kind, model, facts, density=density, rank=rank, seed=seed)
