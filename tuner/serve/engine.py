"""Answers the requests of a server: one thread, which takes what waits for the same adapter in one batch.

The oldest request says which adapter is next; others that wait for it are answered with it, and those that come while
it answers join in, until the oldest that waits is of another adapter or has no room. A request hears its reply piece by
piece, and as soon as it is whole how it ended. Where a batch fails, each of its requests is answered by itself before
it is told so: one of them may be all that is wrong.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence

from inlay.eval import Choice
from inlay.eval.generate import stream
from inlay.eval.scoring import Scorable
from inlay.eval.several import Writing, can_write, write_several
from inlay.tuner.serve.answers import answer
from inlay.tuner.serve.opened import Target
from inlay.tuner.serve.replies import Ended, Failed, Request, Stopped, Telling
from inlay.tuner.serve.stand import Stand

# Of a batch, every row padded to the longest: what is kept of tokens that were read, so that one long prompt beside
# short ones does not take many times its memory. One row may be longer.
PADDED_TOKENS = 2**15
STEP_SECONDS = 2.0  # that the step in hand is waited for at the end


class BusyError(Exception):
    """As many requests wait as may."""


class Engine:
    """The thread, and the requests that wait for it.

    Attributes:
        stand: the base and its adapters.
        tokenizing: to be held while a tokenizer is used: none can be used by two threads at once.
    """

    def __init__(self, stand: Stand, *, batch_size: int, most: int) -> None:
        self.stand = stand
        self.tokenizing = threading.Lock()
        self._batch_size, self._most = batch_size, most
        self._waiting: deque[Request] = deque()
        self._in_hand: dict[Request, Telling] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="inlay-engine", daemon=True)

    @property
    def taken(self) -> int:
        """How many requests are being answered or wait."""
        return len(self._waiting) + len(self._in_hand)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Ends: what is in hand is cut short, what waits is not begun, and both are told."""
        with self._changed:
            self._stopping.set()
            self._changed.notify()
            waiting = tuple(self._waiting)
            self._waiting.clear()
        for request in waiting:
            request.tell(Stopped())
        self._thread.join(STEP_SECONDS)
        for request in tuple(self._in_hand):
            self.end(request, Stopped())

    def submit(self, *requests: Request) -> None:
        """Takes requests that belong together.

        Raises:
            BusyError: too many wait already; none of these was taken.
        """
        with self._changed:
            if not self._stopping.is_set():
                if self.taken + len(requests) > self._most:
                    raise BusyError(f"{self._most} requests are being answered or wait; ask again later")
                self._waiting += requests
                self._changed.notify()
                return
        for request in requests:
            request.tell(Stopped())

    def end(self, request: Request, how: Ended | Failed) -> None:
        """Tells the end of a reply, unless it was told; another may take its place."""
        with self._changed:
            in_hand = self._in_hand.pop(request, None)
        if in_hand:
            request.tell(how)

    def _work(self) -> None:
        while batch := self._next():
            if failed := _failure(self.stand.put_on, batch[0].model):
                for request in batch:
                    self.end(request, failed)
            elif failed := _failure(self._answer, batch):
                self._answer_again(failed)

    def _answer_again(self, failed: Failed) -> None:
        """What a batch that failed has left: each by itself, or told so where it was by itself."""
        requests = tuple(self._in_hand)
        for request in requests:
            if len(requests) > 1:
                self._answer_alone(request)
            else:
                self.end(request, failed)

    def _next(self) -> list[Request]:
        """The oldest request and those that can be answered with it; none where the work is to end."""
        with self._changed:
            self._changed.wait_for(self._ready)
            if self._stopping.is_set():
                return []
            model = self._waiting[0].model
            for request in tuple(self._waiting):
                if request.model == model and self._has_room(request):
                    self._take(request)
            return list(self._in_hand)

    def _joining(self, scorable: Scorable, model: str) -> list[Request]:
        """The oldest that wait, as far as they can be written with the replies in hand."""
        taken: list[Request] = []
        with self._changed:
            self._ready()
            while self._waiting and not self._stopping.is_set():
                oldest = self._waiting[0]
                if oldest.model != model or not _is_shared(scorable, oldest) or not self._has_room(oldest):
                    break
                self._take(oldest)
                taken.append(oldest)
        return taken

    def _has_room(self, request: Request) -> bool:
        """Whether it can be read beside what is in hand."""
        rows = len(self._in_hand) + 1
        longest = max([len(request.prompt), *(telling.length for telling in self._in_hand.values())])
        return rows == 1 or (rows <= self._batch_size and rows * longest <= PADDED_TOKENS)

    def _take(self, request: Request) -> None:
        self._waiting.remove(request)
        renderer = self.stand.targets[request.model].renderer
        self._in_hand[request] = Telling(request, renderer, tokenizing=self.tokenizing, stopping=self._stopping)

    def _ready(self) -> bool:
        """Whether something is to be done, once what nobody wants any more is left out."""
        gone = [request for request in self._waiting if request.unwanted.is_set()]
        for request in gone:
            self._waiting.remove(request)
            request.tell(Failed("the client has gone away"))
        return bool(self._waiting) or self._stopping.is_set()

    def _answer(self, batch: Sequence[Request]) -> None:
        target = self.stand.targets[batch[0].model]
        scorable = self.stand.put_on(target.name)
        together = [request for request in batch if _is_shared(scorable, request)]
        alone = [request for request in batch if request not in together]

        def joining(_: int) -> list[Writing]:  # none where others would have to wait for them
            return [] if alone else self._writings(self._joining(scorable, target.name))

        if together:
            write_several(scorable, self._writings(together), stop_ids=target.renderer.stop_ids, joining=joining)
        for request in alone:
            self._answer_alone(request)

    def _answer_alone(self, request: Request) -> None:
        """Answers it, or says why it cannot be answered."""
        target = self.stand.targets[request.model]
        how = self._choose if isinstance(request.example, Choice) else self._write
        if failed := _failure(how, request, target):
            self.end(request, failed)

    def _choose(self, request: Request, target: Target) -> None:
        with self.tokenizing:
            found = answer(
                self.stand.put_on(target.name),
                target.renderer,
                request.example,
                request.decoding,
                batch_size=target.batch_size,
                heard=request.tell,
            )
            length = len(target.renderer.answer_ids(request.example.turns, found.text))
        self.end(request, Ended("stop", length))

    def _write(self, request: Request, target: Target) -> None:
        scorable, stop_ids = self.stand.put_on(target.name), target.renderer.stop_ids
        [writing] = self._writings([request])
        if _is_shared(scorable, request):
            write_several(scorable, [writing], stop_ids=stop_ids, joining=lambda _: [])
            return

        def heard(token: int) -> None:
            if not writing.heard(token):
                raise _Enough

        with contextlib.suppress(_Enough):
            stream(scorable, request.prompt, request.decoding, stop_ids=stop_ids, heard=heard)
        writing.ended()

    def _writings(self, requests: Sequence[Request]) -> list[Writing]:
        """Their replies to be written, each behind what was written of it before."""

        def writing(request: Request) -> Writing:
            telling = self._in_hand[request]
            return Writing(
                request.prompt,
                request.decoding,
                telling.hear,
                lambda: self.end(request, telling.end()),
                tuple(telling.written),
            )

        return [writing(request) for request in requests]


def _failure(work: Callable[..., object], *arguments: object) -> Failed | None:
    """What went wrong in a call, in words: the error itself, and the memory that its frames hold, is let go."""
    try:
        work(*arguments)
    except Exception as error:
        return Failed(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    return None


def _is_shared(scorable: Scorable, request: Request) -> bool:
    """Whether it can be answered beside others."""
    return not isinstance(request.example, Choice) and can_write(scorable, request.decoding)


class _Enough(Exception):
    """The rest of a reply is not wanted."""
