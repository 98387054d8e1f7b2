"""What can go wrong for a user, and how it is said: where, what was found, what was expected, the nearest fix.

    Failure                 has an exit code
     +- RequestError   2    the recipe, the data or the arguments are wrong
     +- AnswerNo       1    the work was done or stopped and the answer is no: diverged, not measurable
     +- MachineError   3    this machine cannot: out of memory, disk full, a library is missing
    Interrupted      130    stopped by a signal (143 by SIGTERM)

Anything else that escapes is a bug of inlay's (exit code 4).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        message: what was found and what was expected; lower case, no full stop.
        file: path as the user gave it, or `--set`.
        line, column: 1-based; 0 where unknown.
        width: how many characters of the line are meant.
        source: the line itself.
        note: said beside the carets.
        path: the dotted path in the recipe.
        help: the nearest fix.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    width: int = 1
    source: str = ""
    note: str = ""
    path: str = ""
    help: str = ""

    def __str__(self) -> str:
        lines = [f"error: {self.message}"]
        place = ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)]) if self.file else ""
        if place or self.path:
            lines.append(f"  --> {place or 'recipe'}" + (f" ({self.path})" if self.path else ""))
        if self.source:
            number, pad = str(self.line), " " * len(str(self.line))
            lines += [f" {pad} |", f" {number} | {self.source}"]
            lines.append(f" {pad} | {' ' * (self.column - 1)}{'^' * max(self.width, 1)} {self.note}".rstrip())
            lines.append(f" {pad} |")
        elif self.note:
            lines.append(f"  note: {self.note}")
        if self.help:
            lines.append(f"help: {self.help}")
        return "\n".join(lines)


class Failure(Exception):
    """A failure that the user is told about in words. Carries one or more problems, all found in one pass."""

    exit_code = 4

    def __init__(self, problems: Problem | str | Sequence[Problem], help: str = "") -> None:
        if isinstance(problems, str):
            problems = Problem(problems, help=help)
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RequestError(Failure):
    """The recipe, the data or the arguments are wrong."""

    exit_code = 2


class AnswerNo(Failure):
    """The work ended with a no: training diverged, a score could not be measured."""

    exit_code = 1


class MachineError(Failure):
    """This machine cannot: memory, disk, a missing library or device."""

    exit_code = 3


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal; what was done so far is on disk and labelled. No library's `except Exception` catches it."""

    def __init__(self, message: str, exit_code: int = 130) -> None:
        self.exit_code = exit_code
        super().__init__(message)


@contextlib.contextmanager
def explained(message: str, *kinds: type[Exception], help: str = "") -> Iterator[None]:
    """Turns a library's exception of the given kinds into a `RequestError` that starts with `message`."""
    try:
        yield
    except kinds as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RequestError(f"{message}: {first}", help=help) from error
