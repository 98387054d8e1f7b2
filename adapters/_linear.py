"""What the methods that PEFT puts on linear layers have in common."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from inlay.adapters import Adapted, Facts, Linear, Method, Training, _targets
from inlay.adapters import Options as BaseOptions

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


class OnLinear(Method):
    """A method of PEFT that changes linear layers, each on its own.

    GPT-2's own linear layer, which stores its weight transposed, is shown to PEFT as an ordinary one, since half of
    PEFT's methods know no other; LoRA and its kin do, and override `attach` and `load`.
    """

    place: ClassVar[str] = "all linear layers"

    class Options(BaseOptions):
        """The option that all of them have."""

        target_modules: _targets.Linears = Field(
            "all-linear",
            min_length=1,
            description="all-linear, or names of linear layers: full module names or their trailing parts",
        )

    options: Options

    def targets(self, facts: Facts) -> tuple[str, ...]:
        return _targets.linears(self.options.target_modules, facts)

    def refusal(self, facts: Facts, training: Training) -> str | None:
        reason = super().refusal(facts, training) or _targets.refusal_of_linears(self.options.target_modules, facts)
        if reason:
            return reason
        for name in self.targets(facts):
            if reason := self.misfit(facts.linears[name]):
                return f"{self.title} does not fit layer `{name}`: {reason}"
        return None

    def misfit(self, layer: Linear) -> str | None:
        """Why the options do not fit a layer of this shape; None where they do."""
        return None

    @abstractmethod
    def weights(self, layer: Linear) -> int:
        """The number of weights that train beside one layer of this shape."""

    def trainable(self, facts: Facts) -> int:
        return sum(self.weights(facts.linears[name]) for name in self.targets(facts))

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        from inlay.adapters import _peft

        return _peft.attach(self._config(facts, seed), model, seed=seed, on_linear=True)

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        from inlay.adapters import _peft

        return _peft.load(self._config(facts, 0), folder, model, on_linear=True)

    def _fields(self, facts: Facts, seed: int) -> dict[str, object]:
        """The fields of PEFT's configuration that are this method's own; `seed`: of what is drawn and never trained."""
        return self.options.model_dump(exclude={"target_modules"})

    def _config(self, facts: Facts, seed: int) -> PeftConfig:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        from inlay.adapters._peft import TASK_TYPES

        return PEFT_TYPE_TO_CONFIG_MAPPING[self.peft_type](
            task_type=TASK_TYPES[facts.kind],
            target_modules=list(self.targets(facts)),
            **self._fields(facts, seed),
        )
