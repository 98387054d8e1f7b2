"""Answers the requests of a server: one thread, which takes what waits for the same adapter in one batch.

The oldest request says which adapter is next; others that wait for it are answered with it, and those that come while
it answers join in, until the oldest that waits is of another adapter. A request hears its reply piece by piece, and as
soon as it is whole how it ended.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from inlay.eval import Choice, Decoding, Example
from inlay.eval.generate import stream
from inlay.eval.scoring import Scorable
from inlay.eval.several import Writing, can_write, write_several
from inlay.tuner.serve.answers import Unrolling, answer
from inlay.tuner.serve.opened import Target
from inlay.tuner.serve.stand import Stand


@dataclass(frozen=True)
class Ended:
    """The end of a reply: it ended by itself or at one of the request's words, or at its greatest length."""

    reason: Literal["stop", "length"]
    tokens: int


@dataclass(frozen=True)
class Failed:
    """The end of a reply that could not be written."""

    message: str


class BusyError(Exception):
    """As many requests wait as may."""


@dataclass(eq=False)
class Request:
    """What is asked of a model.

    Attributes:
        model: its name.
        example: the question.
        prompt: its token ids.
        decoding: how it is answered.
        until: words before which the reply ends.
        tell: hears pieces of text, and at last an `Ended` or a `Failed`; called from the engine's thread.
        unwanted: set when nobody listens any more.
    """

    model: str
    example: Example
    prompt: tuple[int, ...]
    decoding: Decoding
    until: tuple[str, ...]
    tell: Callable[[str | Ended | Failed], None]
    unwanted: threading.Event = field(default_factory=threading.Event)


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
        self._in_hand: set[Request] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="inlay-engine", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the batch in hand, which is cut short; what waits is told that it failed."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, *requests: Request) -> None:
        """Takes requests that belong together.

        Raises:
            BusyError: too many wait already; none of these was taken.
        """
        with self._changed:
            if self._stopping or len(self._waiting) + len(self._in_hand) + len(requests) > self._most:
                raise BusyError(f"{self._most} requests are being answered or wait; ask again later")
            self._waiting += requests
            self._changed.notify()

    def _work(self) -> None:
        while batch := self._next():
            try:
                self._answer(batch)
            except Exception as error:  # a request must hear of it, and the next one be answered
                for request in tuple(self._in_hand):
                    self.end(request, Failed(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"))
        for request in self._waiting:
            request.tell(Failed("the server is stopping"))

    def _next(self) -> list[Request]:
        """The oldest request and those that can be answered with it; none where the work is to end."""
        with self._changed:
            self._changed.wait_for(self._ready)
            if self._stopping:
                return []
            model = self._waiting[0].model
            batch = [request for request in self._waiting if request.model == model][: self._batch_size]
            for request in batch:
                self._waiting.remove(request)
            self._in_hand.update(batch)
            return batch

    def _joining(self, scorable: Scorable, model: str, left: int) -> list[Request]:
        """The oldest that wait, as far as they can be written with the replies in hand, of which so many are left."""
        taken: list[Request] = []
        with self._changed:
            self._ready()
            while self._waiting and len(taken) + left < self._batch_size and not self._stopping:
                oldest = self._waiting[0]
                if oldest.model != model or not _is_shared(scorable, oldest):
                    break
                taken.append(self._waiting.popleft())
            self._in_hand.update(taken)
        return taken

    def _ready(self) -> bool:
        """Whether something is to be done, once what nobody wants any more is left out."""
        gone = [request for request in self._waiting if request.unwanted.is_set()]
        for request in gone:
            self._waiting.remove(request)
            request.tell(Failed("the client has gone away"))
        return bool(self._waiting) or self._stopping

    def _answer(self, batch: Sequence[Request]) -> None:
        scorable = self.stand.put_on(batch[0].model)
        target = self.stand.targets[batch[0].model]
        together = [request for request in batch if _is_shared(scorable, request)]
        alone = [request for request in batch if request not in together]

        def writings(requests: Sequence[Request]) -> list[Writing]:
            replies = [_Reply(request, target, self) for request in requests]
            return [Writing(r.request.prompt, r.request.decoding, r.hear, r.end) for r in replies]

        def joining(left: int) -> list[Writing]:  # none where others would have to wait for them
            return [] if alone else writings(self._joining(scorable, target.name, left))

        if together:
            write_several(scorable, writings(together), stop_ids=target.renderer.stop_ids, joining=joining)
        for request in alone:
            self._answer_alone(scorable, target, request)

    def _answer_alone(self, scorable: Scorable, target: Target, request: Request) -> None:
        if isinstance(request.example, Choice):
            with self.tokenizing:
                found = answer(
                    scorable,
                    target.renderer,
                    request.example,
                    request.decoding,
                    batch_size=target.batch_size,
                    heard=request.tell,
                )
                length = len(target.renderer.answer_ids(request.example.turns, found.text))
            self.end(request, Ended("stop", length))
            return
        reply = _Reply(request, target, self)

        def heard(token: int) -> None:
            if not reply.hear(token):
                raise _Enough

        with contextlib.suppress(_Enough):
            stream(scorable, request.prompt, request.decoding, stop_ids=target.renderer.stop_ids, heard=heard)
        reply.end()

    def end(self, request: Request, how: Ended | Failed) -> None:
        """Tells the end of a reply; another may take its place."""
        with self._changed:
            self._in_hand.remove(request)
        request.tell(how)

    @property
    def stopping(self) -> bool:
        """Whether it is to end."""
        return self._stopping


def _is_shared(scorable: Scorable, request: Request) -> bool:
    """Whether it can be answered beside others."""
    return not isinstance(request.example, Choice) and can_write(scorable, request.decoding)


class _Enough(Exception):
    """The rest of a reply is not wanted."""


class _Reply:
    """A reply as it is written: tokens to text, held back as long as it could be the beginning of a word to end at."""

    def __init__(self, request: Request, target: Target, engine: Engine) -> None:
        self.request, self._engine = request, engine
        self._text = Unrolling(target.renderer, request.example)
        self._stop_ids = target.renderer.stop_ids
        self._held = ""
        self._tokens = 0
        self._reason: Literal["stop", "length"] = "length"
        self._over = False

    def hear(self, token: int) -> bool:
        """Takes the next token; says whether more are wanted."""
        self._tokens += 1
        if token in self._stop_ids:
            self._reason = "stop"
        with self._engine.tokenizing:
            piece = self._text.add(token)
        self._tell(piece)
        return not (self._over or self.request.unwanted.is_set() or self._engine.stopping)

    def end(self) -> None:
        """After the last token."""
        with self._engine.tokenizing:
            rest = self._text.rest()
        self._tell(rest)
        if self._held and not self._over:
            self.request.tell(self._held)
        self._engine.end(self.request, Ended(self._reason, self._tokens))

    def _tell(self, piece: str) -> None:
        if self._over or not piece:
            return
        text = self._held + piece
        found = [place for word in self.request.until if (place := text.find(word)) >= 0]
        if found:
            self._over, self._reason, self._held = True, "stop", ""
            ready = text[: min(found)]
        else:
            kept = max((_overlap(text, word) for word in self.request.until), default=0)
            ready, self._held = text[: len(text) - kept], text[len(text) - kept :]
        if ready:
            self.request.tell(ready)


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of the text begin the word."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)
