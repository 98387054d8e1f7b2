"""LN tuning: the normalization layers train, everything else stays as it is.

    y = g * normalized(x) + c       g, c: one number for each dimension, from the base's own on; c where it has one

What trains is a copy in fp32 of each layer's few weights; a layer of the base that computes in bf16 is asked in fp32
and its answer rounded. The copies start as the base's, so the first forward pass is the base's.
Source: Zhao et al. 2024, "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning",
arXiv:2312.11420, section 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from inlay.adapters import Adapted, Facts, Method, Training, _targets
from inlay.adapters import Options as BaseOptions

if TYPE_CHECKING:
    from peft import LNTuningConfig
    from torch import nn


class LnTuning(Method):
    """Trained normalization layers; mergeable."""

    title: ClassVar[str] = "LN tuning"
    paper: ClassVar[str] = "Zhao et al. 2024, arXiv:2312.11420"
    place: ClassVar[str] = "normalization layers"
    learning_rate: ClassVar[float] = 1e-3
    peft_type: ClassVar[str] = "LN_TUNING"
    saved: ClassVar[tuple[str, ...]] = ("target_modules",)

    class Options(BaseOptions):
        """Options of LN tuning."""

        target_modules: tuple[str, ...] | None = Field(
            None, min_length=1, description="names of normalization layers; all of them by default"
        )

    options: Options

    def targets(self, facts: Facts) -> tuple[str, ...]:
        named = self.options.target_modules
        return tuple(facts.norms) if named is None else _targets.matching(named, facts.norms)

    def refusal(self, facts: Facts, training: Training) -> str | None:
        if reason := super().refusal(facts, training):
            return reason
        if not facts.norms:
            return f"a {facts.model_type} base has no normalization layer with weights"
        return _targets.refusal(self.options.target_modules or (), facts.norms, facts)

    def trainable(self, facts: Facts) -> int:
        return sum(facts.norms[name] for name in self.targets(facts))

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        from inlay.adapters import _peft

        adapted = _peft.attach(self._config(facts), model, seed=seed)
        _widen(adapted.model)
        return adapted

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        from inlay.adapters import _peft

        return _peft.load(self._config(facts), folder, model, prepare=_widen)

    def _config(self, facts: Facts) -> LNTuningConfig:
        from peft import LNTuningConfig

        from inlay.adapters._peft import TASK_TYPES

        return LNTuningConfig(task_type=TASK_TYPES[facts.kind], target_modules=list(self.targets(facts)))


def _widen(model: nn.Module) -> None:
    """Makes the trained copies fp32, each answering in the dtype it is asked in."""
    from peft.tuners.ln_tuning.layer import LNTuningLayer
    from torch import Tensor

    def widen(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].float(), *inputs[1:])

    def narrow(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.to(inputs[0].dtype)

    for layer in model.modules():
        if isinstance(layer, LNTuningLayer):
            layer.ln_tuning_layers["default"].float().register_forward_pre_hook(widen)
            layer.register_forward_hook(narrow)
