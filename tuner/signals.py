"""Ctrl-C and SIGTERM: finish the step, leave a complete and labelled run; the second one stops at once."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from inlay.tuner.problems import Interrupted

HANDLED = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Inside the context, a first signal during `deferred` work sets `asked`; any other raises `Interrupted`.

    Attributes:
        asked: a signal came and the work in hand should end at its next good place.
        deferred: set while there is such a place to wait for.
    """

    def __init__(self) -> None:
        self.asked = False
        self.deferred = False
        self._number: int = signal.SIGINT
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in HANDLED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def stopped(self, message: str) -> Interrupted:
        """The failure that the work ends with; its exit code names the signal that came."""
        return Interrupted(message, 128 + self._number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        if self.deferred and not self.asked:
            self.asked = True
            print("\nstopping after this step; once more to stop at once", file=sys.stderr)
            return
        self.asked = True
        raise self.stopped(f"stopped by {signal.Signals(number).name}")
