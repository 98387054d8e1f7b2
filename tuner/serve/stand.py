"""One base, opened once, with one of its adapters on it at a time."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

from inlay import adapters
from inlay.adapters import Adapted
from inlay.eval.scoring import Scorable
from inlay.tuner import saved
from inlay.tuner.base import Base, plain_layers
from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.serve.opened import Target, open_base


def side_by_side(targets: Sequence[Target]) -> dict[str, Target]:
    """The targets by name, and the base that they share, as it is, by its own name where no target has it.

    Raises:
        RequestError: they stand on different bases, or two have one name.
    """
    first = targets[0]
    problems = [
        Problem(f"`{other.name}` is on {_base(other)}, `{first.name}` on {_base(first)}; one server has one base")
        for other in targets[1:]
        if _base(other) != _base(first) or other.files.sha256() != first.files.sha256()
    ]
    named: dict[str, Target] = {}
    for target in targets:
        if target.name in named:
            problems.append(Problem(f"two of them are called `{target.name}`", help="rename a folder"))
        named[target.name] = target
    if problems:
        raise RequestError(problems)
    kind = adapters.find("none")
    nothing = dataclasses.replace(
        first, name=first.files.name, adapter=None, method=kind(kind.Options()), task=None, columns={}, truncate=False
    )
    return {nothing.name: nothing, **named}


def _base(target: Target) -> str:
    return f"{target.files.name} ({target.quantization}, {target.quantization.compute_dtype}, {target.attention})"


class Stand:
    """Puts the adapter that is asked for on the base, and takes the one before off.

    Attributes:
        targets: what can be asked for, by name.
    """

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self.targets = targets
        self._base: Base | None = None
        self._name = ""
        self._scorable: Scorable | None = None
        self._on = contextlib.ExitStack()

    def put_on(self, name: str) -> Scorable:
        """The model of that name, ready to be called.

        Raises:
            RequestError: its adapter does not fit the base.
            MachineError: memory does not suffice.
        """
        if self._scorable is not None and self._name == name:
            return self._scorable
        self._take_off()
        target = self.targets[name]
        self._base = self._base or open_base(target)
        try:
            self._on.enter_context(plain_layers(self._base, target.plain_layers))
            adapted = saved.open_adapter(target.method, target.facts, self._base, target.adapter)
        except BaseException:
            self._on.pop_all()  # nothing is put back: what was begun may have changed the base,
            self._base = None  # so it is opened afresh
            raise
        self._on.callback(self._detach, adapted)
        self._name, self._scorable = name, target.scorable(adapted)
        return self._scorable

    def _take_off(self) -> None:
        self._scorable = None
        self._on.close()

    def _detach(self, adapted: Adapted) -> None:
        if adapted.detach() is None:
            self._base = None
