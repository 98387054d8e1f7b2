"""`inlay serve`: runs, adapters of one base, or a model, behind OpenAI's API on this machine.

    /v1/models   /v1/chat/completions   /v1/completions
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inlay.tuner.console import Progressing, hushed
from inlay.tuner.problems import RequestError
from inlay.tuner.serve import wire
from inlay.tuner.serve.completions import INVALID, Completions, Refusal
from inlay.tuner.serve.engine import Engine
from inlay.tuner.serve.opened import examine
from inlay.tuner.serve.stand import Stand, side_by_side

LARGEST_BODY = 4 * 2**20
NAMES_OF_HERE = ["localhost", "127.0.0.1", "[::1]"]


def serve(names: Sequence[str], *, base: str | None, host: str, port: int, most: int) -> None:
    """Serves until it is stopped.

    Args:
        names: runs, adapters' folders, or one model; all on one base.
        base: the base of the adapters, where it is elsewhere now.
        host, port: where it listens; port 0 takes a free one.
        most: how many requests may be answered or wait at once.

    Raises:
        RequestError: they cannot be served together, or the address is taken.
        MachineError: the base cannot be had or held here.
    """
    if most < 1:
        raise RequestError(f"--concurrency is {most}; expected 1 or more")
    show = Progressing()
    with hushed():
        stand = Stand(side_by_side([examine(name, base=base) for name in names]))
        for name in stand.targets:  # what does not fit is told now, not to whoever asks first
            stand.put_on(name)
        try:
            listening = socket.create_server((host, port), family=_family(host))
        except (OSError, OverflowError) as error:  # the latter: no such port
            message = f"cannot listen on {host}:{port}: {error}"
            raise RequestError(message, help="name another with --port, or --host") from None
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/v1"
        if not _is_here(host):
            show.say(f"warning  {host} can be reached from other machines, and nobody is asked for a password")
        show.say(f"serving  {address}   models: {', '.join(stand.targets)}   (Ctrl-C ends it)")
        body = json.dumps({"model": list(stand.targets)[-1], "messages": [{"role": "user", "content": "Hi."}]})
        show.say(f"try      curl {address}/chat/completions -H 'Content-Type: application/json' -d '{body}'")
        size = max(target.batch_size for target in stand.targets.values())
        hosts = [*NAMES_OF_HERE, host] if _is_here(host) else ["*"]
        engine = Engine(stand, batch_size=size, most=most)
        Serving(build(engine, hosts=hosts), engine, say=show.say).run(sockets=[listening])


class Serving(uvicorn.Server):
    """Ends the engine ahead of the connections, which would wait for every reply that is being written or waits."""

    def __init__(self, app: FastAPI, engine: Engine, *, say: Callable[[str], None]) -> None:
        super().__init__(uvicorn.Config(app, log_level="warning", access_log=False))
        self._engine, self._say = engine, say

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if taken := self._engine.taken:
            self._say(f"stopping; replies that are cut short or not begun: {taken}")
        await run_in_threadpool(self._engine.stop)
        await super().shutdown(sockets)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _is_here(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def build(engine: Engine, *, hosts: Sequence[str]) -> FastAPI:
    """The application around an engine, which begins and ends with it.

    Args:
        hosts: names under which it may be called, so that no page of a browser can pass for one of this machine.
    """

    @contextlib.asynccontextmanager
    async def alive(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await run_in_threadpool(engine.stop)

    app = FastAPI(lifespan=alive, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_SmallBodies)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    _tell_mistakes(app)
    completions = Completions(engine)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in engine.stand.targets]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        completions.target(name)
        return _model(name)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(asked: wire.ChatAsked, http: HttpRequest) -> dict[str, Any] | StreamingResponse:
        return await completions.chat(asked, http)

    @app.post("/v1/completions", response_model=None)
    async def complete(asked: wire.CompletionAsked, http: HttpRequest) -> dict[str, Any] | StreamingResponse:
        return await completions.complete(asked, http)

    return app


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "inlay"}


def _tell_mistakes(app: FastAPI) -> None:
    """Every mistake in the shape that clients of the API know."""

    @app.exception_handler(Refusal)
    async def refused(_: HttpRequest, refusal: Refusal) -> JSONResponse:
        return JSONResponse(refusal.content, refusal.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: HttpRequest, failure: RequestValidationError) -> JSONResponse:
        first = failure.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, (str, int)))
        return JSONResponse(wire.error(f"{place or 'body'}: {first['msg']}", INVALID, None, place or None), 400)

    @app.exception_handler(HTTPException)
    async def elsewhere(_: HttpRequest, failure: HTTPException) -> JSONResponse:
        return JSONResponse(wire.error(str(failure.detail), INVALID), failure.status_code)

    @app.exception_handler(Exception)
    async def broken(_: HttpRequest, failure: Exception) -> JSONResponse:
        return JSONResponse(wire.error(f"{type(failure).__name__}: {failure}", "server_error"), 500)


class _SmallBodies:
    """Reads a body before it is handled, and refuses it beyond `LARGEST_BODY`, whatever it says of its length."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        read, more = 0, scope["type"] == "http"
        while more:
            messages.append(await receive())
            read += len(messages[-1].get("body", b""))
            more = bool(messages[-1].get("more_body"))
            if read > LARGEST_BODY:
                refusal = Refusal(413, f"the request is larger than {LARGEST_BODY // 2**20} MB")
                await JSONResponse(refusal.content, refusal.status)(scope, receive, send)
                return
        await self._app(scope, again, send)
