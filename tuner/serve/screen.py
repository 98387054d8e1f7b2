"""Where a chat takes place: at a terminal, or between two pipes.

At a terminal there is a prompt, and replies appear as they are written. In a pipe every line in is followed by exactly
one line out: the reply, its own line breaks written as `\\n`; an empty line where there is none. What is said besides
goes to stderr. Nothing that a model writes reaches either as anything but text: control characters are written out.
"""

from __future__ import annotations

import contextlib
import io
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Protocol

from inlay.tuner.report.text import visible

_LABEL = 7  # columns of what stands before a reply: `tuned`, `base`


class Screen(Protocol):
    """Where lines come from, and where replies and notes go."""

    live: bool

    def lines(self) -> Iterator[str]:
        """What is typed, line by line, to the end."""

    def reply(self, who: str) -> contextlib.AbstractContextManager[Callable[[str], None]]:
        """Inside, what is called with the pieces of a reply of `who`."""

    def note(self, text: str) -> None:
        """Says something that is no reply."""


class Terminal:
    """A person at a keyboard. Ctrl-C leaves the line, Ctrl-D the chat."""

    live = True

    def lines(self) -> Iterator[str]:
        with contextlib.suppress(ImportError):  # arrow keys and history, where Python has them
            import readline

            readline.parse_and_bind("set enable-bracketed-paste on")  # a text of several lines is pasted as one
        while True:
            try:
                yield input("> ")
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                self.note("Ctrl-D ends the chat")

    @contextlib.contextmanager
    def reply(self, who: str) -> Iterator[Callable[[str], None]]:
        _show(f"{who:{_LABEL}}" if who else "")
        try:
            yield _show
        finally:
            _show("\n")

    def note(self, text: str) -> None:
        print(textwrap.indent(visible(text), "  "), file=sys.stderr, flush=True)


class Pipe:
    """A program: one line in, one line out."""

    live = False

    def __init__(self) -> None:
        self._number = 0
        self._replied = False

    def lines(self) -> Iterator[str]:
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape", newline="\n")
        for self._number, line in enumerate(sys.stdin, start=1):
            self._replied = False
            yield line.rstrip("\r\n")
            if not self._replied:
                _show("\n")

    @contextlib.contextmanager
    def reply(self, who: str) -> Iterator[Callable[[str], None]]:
        pieces: list[str] = []
        yield pieces.append
        _show("".join(pieces), line_break="\\n")
        _show("\n")
        self._replied = True

    def note(self, text: str) -> None:
        print(f"line {self._number}: {visible(text)}", file=sys.stderr, flush=True)


def here() -> Screen:
    """The place that this process runs in."""
    return Terminal() if sys.stdin.isatty() and sys.stdout.isatty() else Pipe()


def _show(text: str, line_break: str = "\n") -> None:
    """Writes text as it is being made; what the terminal's encoding lacks is written as its escape."""
    encoding = sys.stdout.encoding or "ascii"
    shown = visible(text).replace("\n", line_break)
    print(shown.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
