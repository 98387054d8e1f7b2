"""The thread behind `inlay serve`: who is answered with whom, who waits, and what a failure of one is to the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import time

import answering
import openai
import pytest
import torch
from serving import HELLO, post, running, said

from inlay.eval import Decoding, Text
from inlay.eval.continuation import Continuation
from inlay.tuner.serve import engine as engines
from inlay.tuner.serve.engine import Engine
from inlay.tuner.serve.opened import examine
from inlay.tuner.serve.replies import Ended, Failed, Request, Stopped, Telling
from inlay.tuner.serve.stand import Stand, side_by_side


@pytest.fixture(scope="module")
def made(tiny_models, tmp_path_factory):
    """A folder with a run of dialogues."""
    return answering.made(tmp_path_factory.mktemp("made"), tiny_models("llama"), "dialogue")


def test_beyond_the_limit_requests_are_told_to_come_again(made):
    with contextlib.chdir(made), running("dialogue", most=2) as (address, engine):
        gate = threading.Event()
        real = engine._answer
        engine._answer = lambda batch: (gate.wait(60), real(batch))

        async def three() -> list[object]:
            many = openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0)
            ask = [many.completions.create(model="base", prompt="The lamp", max_tokens=2) for _ in range(3)]
            going = [asyncio.ensure_future(one) for one in ask]
            await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
            gate.set()
            return await asyncio.gather(*going, return_exceptions=True)

        found = asyncio.run(three())
        busy = [error for error in found if isinstance(error, openai.RateLimitError)]
        assert len(busy) == 1
        assert busy[0].body["code"] == "rate_limit_exceeded"
        assert len([one for one in found if not isinstance(one, Exception)]) == 2


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_its_reply(stream, made):
    with contextlib.chdir(made), running("dialogue") as (address, engine):
        ended, heard = [], threading.Event()
        real = engine._answer

        def watched(batch):
            for request in batch:
                request.tell = lambda what, tell=request.tell: (note(what), tell(what))
            real(batch)

        def note(what):
            heard.set()
            time.sleep(0.02)
            ended.extend([] if isinstance(what, str) else [what])

        engine._answer = watched
        host, port = re.search(r"//(.*):(\d+)", address).groups()
        asked = {"model": "dialogue", "messages": HELLO, "max_tokens": 200, "stream": stream}
        with socket.create_connection((host, int(port))) as line:
            line.sendall(post(json.dumps(asked).encode()))
            assert heard.wait(60)
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        client.completions.create(model="base", prompt="The lamp", max_tokens=2)  # waits for it
        assert ended[0].tokens < 120


def test_who_comes_later_joins(made):
    """A short reply begins and ends while a long one is written."""
    with contextlib.chdir(made), running("dialogue") as (address, engine):
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        short = {"model": "base", "prompt": "The lamp", "max_tokens": 2}
        alone = client.completions.create(**short).choices[0].text
        slow = {"model": "base", "prompt": "How is the news", "max_tokens": 200, "stream": True}
        whole = "".join(chunk.choices[0].text for chunk in client.completions.create(**slow))
        stream = client.completions.create(**slow)
        pieces = [next(stream).choices[0].text, next(stream).choices[0].text]
        assert client.completions.create(**short).choices[0].text == alone
        assert len(engine._in_hand) == 1, "the long one is still being written"
        for chunk in stream:
            pieces.append(chunk.choices[0].text)
        assert "".join(pieces) == whole


def test_nobody_joins_ahead_of_who_came_before(made):
    with contextlib.chdir(made):
        stand = Stand(side_by_side([examine("dialogue")]))
        scorable = stand.put_on("base")
    engine = Engine(stand, batch_size=2, most=9)
    first, second, third, other, last = (
        request(5, model=model) for model in ("base", "base", "base", "dialogue", "base")
    )
    engine.submit(first, second, third, other, last)
    assert engine._next() == [first, second]
    assert engine._joining(scorable, "base") == [], "the batch is full"
    engine.end(first, Ended("stop", 1))
    assert engine._joining(scorable, "base") == [third]
    engine.end(second, Ended("stop", 1))
    assert engine._joining(scorable, "base") == [], "the other adapter's request is older"
    engine.end(third, Ended("stop", 1))
    assert engine._next() == [other]


def request(length: int, model: str = "base", heard: list | None = None) -> Request:
    """One with a prompt of so many tokens."""
    tell = print if heard is None else heard.append
    return Request(model, Text("", "The lamp"), (5,) * length, Decoding(), (), tell)


def test_a_long_prompt_does_not_make_others_as_long(made, monkeypatch):
    monkeypatch.setattr(engines, "PADDED_TOKENS", 100)
    with contextlib.chdir(made):
        stand = Stand(side_by_side([examine("dialogue")]))
        scorable = stand.put_on("base")
    engine = Engine(stand, batch_size=8, most=9)
    short, long, more, longest, late = (request(length) for length in (20, 60, 30, 200, 5))
    engine.submit(short, long, more, longest)
    assert engine._next() == [short, more], "2 rows of 60 are too many"
    engine.submit(late)
    assert engine._joining(scorable, "base") == [], "what is long comes before what is late"
    for done, following in ((more, long), (long, longest)):
        for one in (short, done):
            engine.end(one, Ended("stop", 1))
        assert engine._next() == [following]
        assert engine._joining(scorable, "base") == []
    engine.end(longest, Ended("stop", 1))
    assert engine._next() == [late]
    engine._in_hand[late].written += [7] * 50
    engine.submit(short)
    assert engine._joining(scorable, "base") == [], "replies are as long as they have become"


def test_what_one_request_fails_at_is_not_told_to_the_others(made, monkeypatch):
    """Memory runs out as it joins; those that were begun go on behind what they were told."""
    real, hear, in_hand = Continuation.__init__, Telling.hear, []

    def reading(self, scorable, prompts):
        if any(len(prompt) > 100 for prompt in prompts):
            in_hand.append(engine.taken)
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(self, scorable, prompts)

    ways = ({}, {"temperature": 1.5, "seed": 3}, {"stop": ["never seen"]})
    with contextlib.chdir(made), running("dialogue") as (address, engine):
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        asked = [{"model": "base", "prompt": f"The lamp {n}", "max_tokens": 60, **way} for n, way in enumerate(ways)]
        alone = [client.completions.create(**one).choices[0].text for one in asked]
        monkeypatch.setattr(Continuation, "__init__", reading)
        monkeypatch.setattr(Telling, "hear", lambda telling, token: time.sleep(0.01) or hear(telling, token))
        streams = [client.completions.create(**one, stream=True) for one in asked]
        told = [[next(stream).choices[0].text, next(stream).choices[0].text] for stream in streams]
        with pytest.raises(openai.InternalServerError, match="OutOfMemoryError: CUDA out of memory"):
            client.completions.create(model="base", prompt="The lamp is cold. " * 20, max_tokens=2)
        for pieces, stream in zip(told, streams, strict=True):
            pieces += [chunk.choices[0].text for chunk in stream]
        assert ["".join(pieces) for pieces in told] == alone
    assert in_hand == [4, 1], "it failed with the others, and by itself"


def test_what_an_adapter_fails_at_is_tried_once(made, monkeypatch):
    with contextlib.chdir(made):
        engine = Engine(Stand(side_by_side([examine("dialogue")])), batch_size=8, most=9)
    tries, heard = [], []
    monkeypatch.setattr(engine.stand, "put_on", lambda name: (tries.append(name), 1 / 0))
    engine.submit(*(request(5, heard=heard) for _ in range(3)))
    engine.start()
    while len(heard) < 3:
        time.sleep(0.01)
    engine.stop()
    assert heard == [Failed("ZeroDivisionError: division by zero")] * 3
    assert tries == ["base"]


def test_an_engine_that_ends_says_so_to_everyone(made):
    heard: list[object] = []
    with contextlib.chdir(made), running("dialogue") as (address, engine):
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        slow = {"model": "base", "prompt": "How is the news", "max_tokens": 200}
        stream = client.completions.create(**slow, stream=True)
        assert [next(stream), next(stream)]
        late = request(5, model="dialogue", heard=heard)
        engine.submit(late)
        engine.stop()
        assert heard == [Stopped()]
        with pytest.raises(openai.APIError, match="the server is stopping"):
            list(stream)
        with pytest.raises(openai.InternalServerError, match="the server is stopping") as refused:
            client.completions.create(**slow)
        assert refused.value.status_code == 503


def test_a_step_that_takes_long_does_not_keep_an_engine_from_ending(made, monkeypatch):
    monkeypatch.setattr(engines, "STEP_SECONDS", 0.1)
    with contextlib.chdir(made):
        engine = Engine(Stand(side_by_side([examine("dialogue")])), batch_size=8, most=9)
    begun, gate, heard = threading.Event(), threading.Event(), []
    engine._answer = lambda batch: (begun.set(), gate.wait(60))
    engine.submit(request(5, heard=heard))
    engine.start()
    assert begun.wait(60)
    engine.stop()
    assert heard == [Stopped()]
    gate.set()
    engine._thread.join(60)
    assert heard == [Stopped()]


def test_a_failure_within_is_told_and_the_next_request_answered(made):
    with contextlib.chdir(made), running("dialogue") as (address, engine):
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        real = engine._answer
        engine._answer = lambda batch: 1 / 0
        with pytest.raises(openai.InternalServerError, match="ZeroDivisionError"):
            client.chat.completions.create(model="dialogue", messages=HELLO)
        engine._answer = real
        assert said(client.chat.completions.create(model="dialogue", messages=HELLO))
