"""No adapter: the base as it is, the reference point of every comparison. Nothing trains."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from inlay.adapters import Adapted, Facts, Method
from inlay.adapters._files import CONFIG, read_config, write_config

if TYPE_CHECKING:
    from torch import Tensor, nn

SAVED_AS = {"method": "none"}


class Untouched(Adapted):
    """The base itself."""

    def __init__(self, model: nn.Module) -> None:
        self.model = self.inner = model.requires_grad_(False)

    def disabled(self) -> AbstractContextManager[None]:
        return nullcontext()

    def detach(self) -> nn.Module:
        return self.model.eval()

    def merge(self, name: str, module: nn.Module) -> nn.Module:
        return module

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        if tensors:
            raise ValueError(
                f"nothing trains without an adapter, but there are tensors: {', '.join(list(tensors)[:3])}"
            )

    def save(self, folder: Path) -> None:
        write_config(SAVED_AS, folder)


class NoAdapter(Method):
    """The untouched base."""

    title: ClassVar[str] = "base, untouched"
    paper: ClassVar[str] = ""
    place: ClassVar[str] = "nowhere"
    learning_rate: ClassVar[float] = 0.0

    @classmethod
    def made(cls, config: Mapping[str, object]) -> bool:
        return config == SAVED_AS

    def trainable(self, facts: Facts) -> int:
        return 0

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        return Untouched(model)

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        if read_config(folder) != SAVED_AS:
            raise ValueError(f"{folder / CONFIG} describes another adapter than none")
        return Untouched(model)
