"""AdaLoRA: LoRA in the form of a singular value decomposition, of which training drops the least important ranks.

    y = W x + (alpha / init_r) P (e * Q x)        Q: init_r x in, P: out x init_r, e: one number for each rank

P and Q are kept near orthogonal by a penalty on the loss, orth_reg_weight * mean ||P'P - I||; e starts at zero, so the
first forward pass is the base's. After each step an entry's importance is its smoothed |weight * gradient| times the
smoothed variation of that; a rank's is the sum over its entry of e and the means of its rows of P and Q. From step
`tinit` to step `steps - tfinal` the number of ranks that are kept, over all layers together, falls on a cubic curve
from init_r to target_r a layer; the others' e is set to zero. So layers end with different ranks, target_r on average.
Pruned ranks are saved as zeros, which any loader understands.
Source: Zhang et al. 2023, "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", arXiv:2303.10512,
equations 3 to 11 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from inlay.adapters import Adapted, Facts, Linear, Training
from inlay.adapters._linear import OnLinear

if TYPE_CHECKING:
    from peft import AdaLoraConfig
    from torch import nn


class Adalora(OnLinear):
    """A low-rank update whose ranks are divided among the layers while it trains; mergeable."""

    title: ClassVar[str] = "AdaLoRA"
    paper: ClassVar[str] = "Zhang et al. 2023, arXiv:2303.10512"
    learning_rate: ClassVar[float] = 2e-3
    peft_type: ClassVar[str] = "ADALORA"
    size: ClassVar[str] = "init_r"
    sizes: ClassVar[Sequence[int]] = range(2, 4097)
    saved: ClassVar[tuple[str, ...]] = ("init_r", "target_r", "lora_alpha", "target_modules")
    fresh: ClassVar[tuple[str, ...]] = ("tinit", "tfinal", "deltaT", "beta1", "beta2")

    class Options(OnLinear.Options):
        """Options of AdaLoRA."""

        init_r: int = Field(12, ge=2, le=4096, description="rank of every layer at the start")
        target_r: int = Field(8, ge=1, le=4096, description="average rank of a layer at the end")
        lora_alpha: float = Field(32, gt=0, description="the update is scaled by lora_alpha / init_r")
        lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the input of Q while training")
        tinit: int | None = Field(None, ge=0, description="steps before the first pruning; a tenth of all by default")
        tfinal: int | None = Field(None, ge=0, description="steps after the last pruning; a fifth of all by default")
        deltaT: int = Field(1, ge=1, description="steps between two prunings")  # noqa: N815 - PEFT's name
        beta1: float = Field(0.85, gt=0, lt=1, description="smoothing of importance")
        beta2: float = Field(0.85, gt=0, lt=1, description="smoothing of its variation")
        orth_reg_weight: float = Field(0.5, ge=0, description="weight of the penalty that keeps P and Q orthogonal")

        @model_validator(mode="after")
        def _ranks_fall(self) -> Self:
            if self.target_r >= self.init_r:
                raise ValueError(
                    f"target_r ({self.target_r}) must be below init_r ({self.init_r}); for a fixed rank use lora"
                )
            return self

    options: Options

    def at_size(self, value: int) -> Self:
        target = min(value - 1, max(1, round(value * self.options.target_r / self.options.init_r)))
        return type(self)(self.options.model_copy(update={"init_r": value, "target_r": target}))

    def refusal(self, facts: Facts, training: Training) -> str | None:
        if reason := super().refusal(facts, training):
            return reason
        if training.early_stopping:
            return (
                f"{self.title} prunes its ranks on a schedule, and early stopping would keep weights from before its "
                "end; remove train.early_stopping_patience"
            )
        if training.steps is not None:
            first, last = self._schedule(training.steps)
            if first + last >= training.steps:
                return f"tinit {first} and tfinal {last} leave none of {training.steps} steps to prune ranks in"
        return None

    def _schedule(self, steps: int) -> tuple[int, int]:
        """Steps before the first pruning and after the last."""
        first, last = self.options.tinit, self.options.tfinal
        return steps // 10 if first is None else first, steps // 5 if last is None else last

    def weights(self, layer: Linear) -> int:
        return self.options.init_r * (layer.in_features + layer.out_features + 1)

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        from inlay.adapters._adalora import Pruned

        first, last = self._schedule(steps)
        return Pruned.attach(self._adalora_config(model, facts, first, last, steps), model, seed=seed)

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        from inlay.adapters._adalora import Pruned

        # The ranks stay as they were left, so the schedule is that of no pruning.
        return Pruned.load(self._adalora_config(model, facts, 0, 0, 1), folder, model)

    def _adalora_config(self, model: nn.Module, facts: Facts, first: int, last: int, steps: int) -> AdaLoraConfig:
        from peft import AdaLoraConfig

        from inlay.adapters._peft import TASK_TYPES, stores_transposed

        targets = self.targets(facts)
        options = self.options
        return AdaLoraConfig(
            task_type=TASK_TYPES[facts.kind],
            init_r=options.init_r,
            target_r=options.target_r,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            tinit=first,
            tfinal=last,
            total_step=steps,
            deltaT=options.deltaT,
            beta1=options.beta1,
            beta2=options.beta2,
            orth_reg_weight=options.orth_reg_weight,
            target_modules=list(targets),
            fan_in_fan_out=stores_transposed(model, targets),
        )
