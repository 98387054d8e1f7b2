"""A server in a thread of this process, and requests to it, byte by byte too."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time

from inlay.tuner.serve import server
from inlay.tuner.serve.engine import Engine
from inlay.tuner.serve.opened import examine
from inlay.tuner.serve.stand import Stand, side_by_side

HELLO = [{"role": "user", "content": "How is the sport 3?"}]


@contextlib.contextmanager
def running(*names: str, most: int = 512):
    """A server of these targets in a thread of this process: its address, and its engine."""
    stand = Stand(side_by_side([examine(name) for name in names]))
    engine = Engine(stand, batch_size=16, most=most)
    listening = socket.create_server(("127.0.0.1", 0))
    served = server.Serving(server.build(engine, hosts=server.NAMES_OF_HERE), engine, say=print)
    thread = threading.Thread(target=served.run, kwargs={"sockets": [listening]})
    thread.start()
    while not served.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", engine
    finally:
        served.should_exit = True
        thread.join(timeout=60)
        assert not thread.is_alive()


def said(answered) -> str:
    """The text of a chat's reply."""
    return answered.choices[0].message.content


def raw(address: str, request: bytes) -> tuple[int, dict]:
    """What a request of these bytes gets: status and body."""
    host, port = re.search(r"//(.*):(\d+)", address).groups()
    with socket.create_connection((host, int(port)), timeout=60) as line:
        line.sendall(request)
        answer = b""
        while part := line.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body[body.index(b"{") : body.rindex(b"}") + 1] if b"{" in body else b"{}")


def post(body: bytes, *, host: str = "localhost", path: str = "/v1/chat/completions") -> bytes:
    """A request with this body."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return (head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body
