"""The heavy half of MAM: two of PEFT's models around one base, saved, loaded and switched off as one adapter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from peft import set_peft_model_state_dict
from torch import Tensor, nn

from inlay.adapters import Facts, Method
from inlay.adapters._files import (
    CONFIG,
    WEIGHTS,
    read_config,
    read_weights,
    require_equal_shapes,
    write_config,
    write_weights,
)
from inlay.adapters._peft import PeftAdapted, tensors_to_save


class Mixed(PeftAdapted):
    """A base with bottleneck layers in it, wrapped in a prefix.

    The prefix goes on first: the layers are then put into the base that it wraps, and neither freezes the other.
    """

    def __init__(self, prefix: PeftAdapted, bottleneck: PeftAdapted, settled: Mapping[str, object]) -> None:
        layers = tuple(name.replace("base_model.model.", "base_model.", 1) for name in bottleneck.own)
        super().__init__(prefix.model, (*prefix.own, *layers), prefix.children)
        self._parts = {"prefix": prefix.model, "bottleneck": bottleneck.model}
        self._settled = settled

    @classmethod
    def attach(
        cls,
        prefix: Method,
        bottleneck: Method,
        model: nn.Module,
        facts: Facts,
        *,
        seed: int,
        settled: Mapping[str, object],
    ) -> Self:
        """Puts both on `model`; `settled`: what the saved configuration says."""
        around = prefix.attach(model, facts, seed=seed, steps=0)
        model.disable_input_require_grads()  # PEFT hooks the embeddings again, and would lose the first hook
        return cls(around, bottleneck.attach(model, facts, seed=seed, steps=0), settled)

    @classmethod
    def load(
        cls,
        prefix: Method,
        bottleneck: Method,
        folder: Path,
        model: nn.Module,
        facts: Facts,
        *,
        settled: Mapping[str, object],
    ) -> Self:
        """The adapter saved in `folder`.

        Raises:
            ValueError: it is of another method or has other options; a tensor is missing, unexpected or of another
                shape.
        """
        if (found := read_config(folder)) != settled:
            raise ValueError(f"{folder / CONFIG} describes another adapter, {found}, than {dict(settled)}")
        tensors = read_weights(folder)
        adapted = cls.attach(prefix, bottleneck, model, facts, seed=0, settled=settled)
        require_equal_shapes(adapted._to_save(), tensors, str(folder / WEIGHTS))
        for part, wrapped in adapted._parts.items():
            own = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
            set_peft_model_state_dict(wrapped, own)
        return adapted

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        with self._parts["prefix"].disable_adapter(), self._parts["bottleneck"].disable_adapter():
            yield

    def save(self, folder: Path) -> None:
        write_weights(self._to_save(), folder)
        write_config(self._settled, folder)

    def _to_save(self) -> dict[str, Tensor]:
        return {
            f"{part}.{name}": tensor
            for part, wrapped in self._parts.items()
            for name, tensor in tensors_to_save(wrapped).items()
        }
