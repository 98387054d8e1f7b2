"""No adapter: the base as it is, the reference point of every comparison. Nothing trains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from inlay.adapters import Adapted, Facts, Method

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG = "adapter_config.json"


class Untouched(Adapted):
    """The base itself."""

    def __init__(self, model: nn.Module) -> None:
        self.model = self.inner = model.requires_grad_(False)

    def disabled(self) -> AbstractContextManager[None]:
        return nullcontext()

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        if tensors:
            raise ValueError(
                f"nothing trains without an adapter, but there are tensors: {', '.join(list(tensors)[:3])}"
            )

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps({"method": "none"}) + "\n", encoding="utf-8")


class NoAdapter(Method):
    """The untouched base."""

    title: ClassVar[str] = "base, untouched"
    paper: ClassVar[str] = ""
    learning_rate: ClassVar[float] = 0.0

    def trainable(self, facts: Facts) -> int:
        return 0

    def attach(self, model: nn.Module, facts: Facts, *, seed: int) -> Adapted:
        return Untouched(model)

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        try:
            saved = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{folder} holds no {CONFIG}") from None
        if saved != {"method": "none"}:
            raise ValueError(f"{folder / CONFIG} describes another adapter than none")
        return Untouched(model)
