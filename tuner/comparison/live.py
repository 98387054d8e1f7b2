"""What a comparison shows while it runs: on a terminal a table that fills in; elsewhere a line for each cell."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from inlay.tuner.console import Progressing


class Board(Progressing):
    """The rows by seed, with the main score of each finished cell, what is done now, and the time that is left.

    It is handed to training and benchmark as their progress line.
    """

    def __init__(self, title: str, score: str, rows: Sequence[str], seeds: Sequence[int]) -> None:
        super().__init__()
        self.title, self.score, self.rows, self.seeds = title, score, list(rows), list(seeds)
        self._watched = self._bar is not None
        self._bar = None  # its place is taken by the table
        self._cells: dict[tuple[str, int], str] = {}
        self._now, self._step = "", ""
        self._begun = time.monotonic()
        self._finished = self._todo = 0
        self._live: Live | None = None

    def __enter__(self) -> Board:
        if self._watched:
            self._live = Live(self._drawn(), console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        self._live = None

    def plan(self, todo: int) -> None:
        """So many pieces of work, trials and cells, are to be done."""
        self._todo = todo
        self._begun = time.monotonic()

    def begin(self, what: str) -> None:
        """A piece of work begins."""
        self._now, self._step = what, ""
        self._draw()

    def put(self, row: str, seed: int, value: str, *, worked: bool = True) -> None:
        """A cell is finished; `worked`: now, and not in an earlier attempt."""
        self._cells[row, seed] = value
        self.end(f"{row}, seed {seed}: {value}" if worked else "", worked=worked)

    def end(self, said: str, *, worked: bool = True) -> None:
        """A piece of work is finished."""
        self._finished += worked
        if said and not self._live:
            left = self._left()
            self.note(f"{said}{f'   ({left} left)' if left else ''}")
        self._draw()

    def note(self, text: str) -> None:
        """Prints a line; it stays."""
        super().say(text)

    def say(self, text: str) -> None:
        """What a run says of itself is not repeated for every cell."""

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        self._step = f"{what} {done}/{total} {note}".rstrip()
        self._draw()

    def clear(self) -> None:
        self._step = ""

    def _draw(self) -> None:
        if self._live:
            self._live.update(self._drawn())

    def _left(self) -> str:
        if not self._finished or self._finished >= self._todo:
            return ""
        seconds = (time.monotonic() - self._begun) / self._finished * (self._todo - self._finished)
        return f"~{seconds / 60:.0f} min" if seconds >= 90 else f"~{seconds:.0f} s"

    def _drawn(self) -> Group:
        table = Table(title=Text(self.title), title_justify="left", box=None, pad_edge=False)
        table.add_column(Text(self.score))
        for seed in self.seeds:
            table.add_column(Text(f"seed {seed}"), justify="right")
        for row in self.rows:
            table.add_row(Text(row), *(Text(self._cells.get((row, seed), ".")) for seed in self.seeds))
        state = "   ".join(part for part in (self._now, self._step, self._left() and f"{self._left()} left") if part)
        return Group(table, Text(state, no_wrap=True, overflow="ellipsis"))
