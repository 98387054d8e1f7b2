"""Requests of OpenAI's API to requests of the engine, and their replies back.

A chat is rendered as the run was trained; a completion goes on with its prompt as it stands, marks and blanks included.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest

from inlay.eval import Decoding, Example, Reply, Text, Turn
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.problems import RequestError
from inlay.tuner.serve import wire
from inlay.tuner.serve.engine import BusyError, Engine
from inlay.tuner.serve.opened import Target
from inlay.tuner.serve.questions import STAND_IN, Questions, prompt_ids
from inlay.tuner.serve.replies import Ended, Failed, Request, Stopped

LOOK_SECONDS = 0.25  # between looks at whether a client is still there
INVALID = "invalid_request_error"
LONGEST = 8192  # tokens of a model without a limit of its own: what reading them takes grows with their square
_Question = tuple[Example, tuple[int, ...]]  # and what the model reads of it


class Refusal(Exception):
    """An answer that is a mistake of whoever asked, or of the server."""

    def __init__(self, status: int, message: str, kind: str = INVALID, *, code: str | None = None, param: str = ""):
        super().__init__(message)
        self.status, self.content = status, wire.error(message, kind, code, param or None)


class Completions:
    """Requests of the API to requests of the engine, and their replies back."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._questions = {name: Questions(target) for name, target in engine.stand.targets.items()}

    def target(self, name: str) -> Target:
        """The model of that name; raises where there is none."""
        if name not in self._engine.stand.targets:
            known = ", ".join(self._engine.stand.targets)
            raise Refusal(404, f"there is no model `{name}`; known: {known}", code="model_not_found", param="model")
        return self._engine.stand.targets[name]

    async def chat(self, asked: wire.ChatAsked, http: HttpRequest) -> dict[str, Any] | StreamingResponse:
        """The next message of a conversation."""
        target = self.target(asked.model)

        def question() -> _Question:
            example = _conversation(self._questions[asked.model], asked.messages)
            return example, prompt_ids(target.renderer, example)

        [listener] = await self._submit(asked, target, [question])
        return await self._reply(asked, http, [listener], _ChatFrame(asked))

    async def complete(self, asked: wire.CompletionAsked, http: HttpRequest) -> dict[str, Any] | StreamingResponse:
        """Texts, each gone on with."""
        target = self.target(asked.model)
        if asked.stream and len(asked.prompts) > 1:
            raise Refusal(400, "a stream goes on with one prompt", param="prompt")
        makers = [lambda text=text: _opening(target.renderer, text) for text in asked.prompts]
        listeners = await self._submit(asked, target, makers)
        return await self._reply(asked, http, listeners, _TextFrame(asked))

    async def _submit(
        self, asked: wire.Asked, target: Target, makers: Sequence[Callable[[], _Question]]
    ) -> list[_Listener]:
        listeners = [_Listener(asyncio.get_running_loop()) for _ in makers]

        def render() -> None:
            with self._engine.tokenizing:
                for index, (listener, make) in enumerate(zip(listeners, makers, strict=True)):
                    listener.request = _request(asked, target, make(), index, listener.tell)

        try:
            await run_in_threadpool(render)
            self._engine.submit(*(listener.request for listener in listeners))
        except RequestError as failure:
            raise Refusal(400, "; ".join(problem.message for problem in failure.problems)) from None
        except BusyError as busy:
            raise Refusal(429, str(busy), "requests", code="rate_limit_exceeded") from None
        return listeners

    async def _reply(
        self, asked: wire.Asked, http: HttpRequest, listeners: list[_Listener], frame: _TextFrame
    ) -> dict[str, Any] | StreamingResponse:
        if asked.stream:
            return StreamingResponse(_streamed(asked, listeners[0], frame), media_type="text/event-stream")
        choices, read, written = [], 0, 0
        watch = asyncio.create_task(_give_up_with(http, listeners))
        try:
            for index, listener in enumerate(listeners):
                pieces, ended = await listener.whole()
                choices.append(frame.choice(index, "".join(pieces), ended.reason))
                read, written = read + len(listener.request.prompt), written + ended.tokens
        finally:
            watch.cancel()
            for listener in listeners:  # where one has failed, the others are not waited for
                listener.request.unwanted.set()
        return {**frame.head(frame.kind), "choices": choices, "usage": wire.usage(read, written)}


class _Listener:
    """Hears a reply from the engine's thread, and hands it on to the server's."""

    request: Request

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heard: asyncio.Queue[str | Ended | Failed] = asyncio.Queue()

    def tell(self, what: str | Ended | Failed) -> None:
        """Called by the engine."""
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._heard.put_nowait, what)

    async def next(self) -> str | Ended:
        """The next piece, or the end."""
        what = await self._heard.get()
        if isinstance(what, Failed):
            raise Refusal(503 if isinstance(what, Stopped) else 500, what.message, "server_error")
        return what

    async def whole(self) -> tuple[list[str], Ended]:
        """All pieces and the end."""
        pieces: list[str] = []
        while not isinstance(what := await self.next(), Ended):
            pieces.append(what)
        return pieces, what


class _TextFrame:
    """How texts that were gone on with are put: `kind` is what the API calls a whole one, `chunk` a part of one."""

    kind = chunk = "text_completion"
    prefix = "cmpl"

    def __init__(self, asked: wire.Asked) -> None:
        self._identity, self._model = f"{self.prefix}-{uuid.uuid4().hex}", asked.model

    def head(self, kind: str) -> dict[str, Any]:
        """What an answer begins with."""
        return wire.head(kind, self._identity, self._model)

    def choice(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        """A whole reply."""
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}

    def part(self, text: str, reason: str | None, *, first: bool) -> dict[str, Any]:
        """A piece of a reply."""
        return self.choice(0, text, reason)


class _ChatFrame(_TextFrame):
    """Replies as messages."""

    kind, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def choice(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}

    def part(self, text: str, reason: str | None, *, first: bool) -> dict[str, Any]:
        delta = {"role": "assistant", "content": text} if first else {} if reason else {"content": text}
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


async def _streamed(asked: wire.Asked, listener: _Listener, frame: _TextFrame) -> AsyncIterator[str]:
    """Server-sent events. Where the client goes away, the engine hears that the rest is not wanted."""

    def chunk(choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**frame.head(frame.chunk), "choices": choices}

    try:
        yield wire.event(chunk([frame.part("", None, first=True)]))
        while not isinstance(what := await listener.next(), Ended):
            yield wire.event(chunk([frame.part(what, None, first=False)]))
        yield wire.event(chunk([frame.part("", what.reason, first=False)]))
        if asked.with_usage:
            yield wire.event({**chunk([]), "usage": wire.usage(len(listener.request.prompt), what.tokens)})
        yield wire.event(None)
    except Refusal as refusal:  # too late for another status
        yield wire.event(refusal.content)
    finally:
        listener.request.unwanted.set()


async def _give_up_with(http: HttpRequest, listeners: Sequence[_Listener]) -> None:
    """Says that the replies are not wanted, once the client has gone away."""
    while not await http.is_disconnected():
        await asyncio.sleep(LOOK_SECONDS)
    for listener in listeners:
        listener.request.unwanted.set()


def _conversation(questions: Questions, messages: Sequence[wire.Message]) -> Example:
    """The question. A run of another task than dialogue was trained on one message at a time, and on nothing else."""
    if messages[-1].role != "user":
        raise RequestError("the last message is not the user's, so there is nothing to answer")
    if not questions.conversation:
        if len(messages) > 1:
            message = "this run holds no conversation: it takes one user message, without a system message or earlier "
            raise Refusal(400, f"{message}ones; {questions.manner}", param="messages")
        return questions.line(messages[0].text)
    turns = [Turn("system" if m.role == "developer" else m.role, m.text) for m in messages]
    return Reply("", tuple(turns), (STAND_IN,))


def _opening(renderer: Renderer, text: str) -> _Question:
    """A text that is gone on with; where an encoder reads it, the reply is no part of it."""
    read = renderer.kind == "seq2seq"
    example = Reply("", (Turn("prompt", text),), (STAND_IN,)) if read else Text("", text)
    return example, renderer.marked_ids(text)


def _request(
    asked: wire.Asked, target: Target, question: _Question, index: int, tell: Callable[..., None]
) -> Request:
    """The request, its length checked; `index` is its place among those that were asked together."""
    example, prompt = question
    if not prompt:
        raise RequestError("the prompt is empty")
    decoding, context = _decoding(asked, target, index), target.context or LONGEST
    room = context if target.facts.kind == "seq2seq" else context - len(prompt)
    if asked.longest is None:
        decoding = dataclasses.replace(decoding, max_new_tokens=max(1, min(decoding.max_new_tokens, room)))
    if len(prompt) > context or decoding.max_new_tokens > room:
        reads = "this model reads" if target.context else "of a model without a limit, this server reads"
        message = f"{reads} {context} tokens; the prompt has {len(prompt)}, and the reply may have "
        message += str(decoding.max_new_tokens)
        raise Refusal(400, message, code="context_length_exceeded", param=asked.subject)
    return Request(asked.model, example, prompt, decoding, asked.until, tell)


def _decoding(asked: wire.Asked, target: Target, index: int) -> Decoding:
    """Replies are drawn anew each time, and those that were asked together apart from each other."""
    decoding = target.decoding
    if asked.longest is not None:
        decoding = dataclasses.replace(decoding, max_new_tokens=asked.longest)
    if asked.temperature == 0:
        return dataclasses.replace(decoding, do_sample=False)
    narrowed = asked.top_p is not None and asked.top_p < 1
    if asked.temperature is None and not narrowed and not decoding.do_sample:
        return decoding
    seed = secrets.randbits(32) if asked.seed is None else asked.seed + index
    temperature = decoding.temperature if asked.temperature is None else asked.temperature
    top_p = decoding.top_p if asked.top_p is None else asked.top_p
    return dataclasses.replace(
        decoding, do_sample=True, num_beams=1, temperature=temperature, top_p=top_p, seed=seed
    )
