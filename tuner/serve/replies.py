"""What a server is asked, and a reply as it is written: tokens in, pieces of text out, and at last how it ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from inlay.eval import Decoding, Example
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.serve.answers import Unrolling


@dataclass(frozen=True)
class Ended:
    """The end of a reply: it ended by itself or at one of the request's words, or at its greatest length."""

    reason: Literal["stop", "length"]
    tokens: int


@dataclass(frozen=True)
class Failed:
    """The end of a reply that could not be written."""

    message: str


@dataclass(frozen=True)
class Stopped(Failed):
    """The end of a reply that the server's own end cut short."""

    message: str = "the server is stopping"


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


class Telling:
    """A reply that is told as it is written, held back as long as it could be the beginning of a word to end at.

    Attributes:
        request: what it replies to.
        written: its tokens so far.
    """

    def __init__(
        self, request: Request, renderer: Renderer, *, tokenizing: threading.Lock, stopping: threading.Event
    ) -> None:
        self.request = request
        self.written: list[int] = []
        self._text = Unrolling(renderer, request.example)
        self._stop_ids = renderer.stop_ids
        self._tokenizing, self._stopping = tokenizing, stopping
        self._held = ""
        self._ended_by_word = False

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the reply so far."""
        return len(self.request.prompt) + len(self.written)

    def hear(self, token: int) -> bool:
        """Takes the next token; says whether more are wanted."""
        self.written.append(token)
        with self._tokenizing:
            piece = self._text.add(token)
        self._tell(piece)
        return not (self._ended_by_word or self.request.unwanted.is_set() or self._stopping.is_set())

    def end(self) -> Ended | Stopped:
        """After the last token: tells what was held back, and returns how the reply ended."""
        with self._tokenizing:
            rest = self._text.rest()
        self._tell(rest)
        if self._held and not self._ended_by_word:
            self.request.tell(self._held)
        if self._ended_by_word or self.written[-1] in self._stop_ids:
            return Ended("stop", len(self.written))
        if self._stopping.is_set() and len(self.written) < self.request.decoding.max_new_tokens:
            return Stopped()
        return Ended("length", len(self.written))

    def _tell(self, piece: str) -> None:
        if self._ended_by_word or not piece:
            return
        text = self._held + piece
        found = [place for word in self.request.until if (place := text.find(word)) >= 0]
        if found:
            self._ended_by_word, self._held = True, ""
            ready = text[: min(found)]
        else:
            kept = max((_overlap(text, word) for word in self.request.until), default=0)
            ready, self._held = text[: len(text) - kept], text[len(text) - kept :]
        if ready:
            self.request.tell(ready)


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of the text begin the word."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)
