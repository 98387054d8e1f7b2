"""What a run prints while it works: to stderr, quiet where nobody watches."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

QUIET_SECONDS = 60.0


class Progressing:
    """One progress line: a live bar on a terminal; elsewhere a plain line every tenth and at least each minute."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        watched = self.console.is_terminal and not os.environ.get("CI") and not os.environ.get("INLAY_NO_PROGRESS")
        self._bar = (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed}/{task.total}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
                transient=True,
            )
            if watched and os.environ.get("TERM") != "dumb"
            else None
        )
        self._task: TaskID | None = None
        self._what = ""
        self._said = (0, 0.0)

    def say(self, text: str) -> None:
        """Prints a line; it stays."""
        self.console.print(text, markup=False, soft_wrap=True)

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """Shows that `done` of `total` parts of `what` are finished."""
        if self._bar is None:
            self._plain(what, done, total, note)
            return
        if what != self._what:
            self.clear()
            self._bar.start()
            self._task = self._bar.add_task(what, total=total, note=note)
            self._what = what
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total, note=note)

    def clear(self) -> None:
        """Takes the bar off the screen."""
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._bar.stop()
        self._task, self._what = None, ""

    def _plain(self, what: str, done: int, total: int, note: str) -> None:
        if what != self._what:
            self._what, self._said = what, (-1, 0.0)
        tenth, now = done * 10 // max(total, 1), time.monotonic()
        if tenth > self._said[0] or now - self._said[1] > QUIET_SECONDS:
            self._said = (tenth, now)
            print(f"{what} {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keeps the libraries' warnings and bars off the screen: what a user can act on is said by inlay itself."""
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("bitsandbytes", "peft", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
