"""`inlay serve`: what OpenAI's own client gets is what the runs answer, for one client and for two hundred.

References are transformers and PEFT on the same files, and the runs' predictions.jsonl.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import answering
import openai
import pytest
import tiny
import torch
from answering import by_peft, continued_by_peft, predictions
from tiny_runs import inlay

from inlay.eval import Decoding, MeasurementError, Text
from inlay.eval.continuation import Continuation
from inlay.eval.several import _drawn, _likeliest
from inlay.tuner.problems import RequestError
from inlay.tuner.serve import engine as engines
from inlay.tuner.serve import server
from inlay.tuner.serve.engine import Engine
from inlay.tuner.serve.opened import examine
from inlay.tuner.serve.replies import Ended, Failed, Request, Stopped, Telling, _overlap
from inlay.tuner.serve.stand import Stand, side_by_side

TASKS = ("dialogue", "summarization", "classification")
HELLO = [{"role": "user", "content": "How is the sport 3?"}]
PROMPT = "User: How is the sport 3?\nBot:"


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


@pytest.fixture(scope="module")
def made(tiny_models, tmp_path_factory):
    """A folder with a run of three tasks, and one of another method, on one base."""
    folder = answering.made(tmp_path_factory.mktemp("made"), tiny_models("llama"), *TASKS)
    with contextlib.chdir(folder):
        path = folder / "summarization-lora.yaml"
        options = ("--set", "adapter={method: bottleneck, bottleneck_size: 8}", "--output", "houlsby")
        code, _, err = inlay("run", path.name, *options)
        assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def address(made):
    with contextlib.chdir(made), running(*TASKS, "houlsby") as (found, _):
        yield found


@pytest.fixture
def client(address):
    return openai.OpenAI(base_url=address, api_key="none", max_retries=0)


def said(answered) -> str:
    return answered.choices[0].message.content


def test_models_are_the_runs_and_their_base(client):
    assert [model.id for model in client.models.list()] == ["base", *TASKS, "houlsby"]
    assert client.models.retrieve("dialogue").id == "dialogue"


def test_each_name_is_answered_by_its_own_adapter(client, made):
    for _ in range(2):  # there and back again
        tuned = client.chat.completions.create(model="dialogue", messages=HELLO)
        assert said(tuned) == by_peft(made / "base", made / "dialogue" / "adapter", PROMPT)
        base = client.chat.completions.create(model="base", messages=HELLO, max_tokens=6)
        assert said(base) == by_peft(made / "base", None, PROMPT)
        for name in ("summarization", "houlsby", "classification"):
            row = predictions(made / name)[0]
            document = re.sub("\n\n(Summary|Label):$", "", row["prompt"])
            answered = client.chat.completions.create(model=name, messages=[{"role": "user", "content": document}])
            assert said(answered) == row["prediction"], name


def test_usage_and_reasons(client, made):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    answered = client.chat.completions.create(model="dialogue", messages=HELLO, max_completion_tokens=3)
    assert answered.choices[0].finish_reason == "length"
    assert answered.usage.prompt_tokens == len(tokenizer(PROMPT)["input_ids"])
    assert answered.usage.completion_tokens == 3
    assert answered.usage.total_tokens == answered.usage.prompt_tokens + 3


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_stream_joins_to_the_whole(client, temperature):
    options = {"model": "dialogue", "messages": HELLO, "max_tokens": 30, "temperature": temperature, "seed": 7}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == said(whole)
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert len(chunks) > 5
    assert len({chunk.id for chunk in chunks}) == 1


def test_seeds_decide_what_is_drawn(client):
    def drawn(seed: int) -> str:
        options = {"temperature": 1.5, "top_p": 0.9, "max_tokens": 20, "seed": seed}
        return said(client.chat.completions.create(model="dialogue", messages=HELLO, **options))

    assert drawn(1) == drawn(1) != drawn(2)


def test_without_a_seed_each_reply_is_drawn_anew(client):
    def drawn(**options) -> list[str]:
        prompts = ["The lamp"] * 3
        found = client.completions.create(model="base", prompt=prompts, temperature=1.5, max_tokens=20, **options)
        return [choice.text for choice in sorted(found.choices, key=lambda choice: choice.index)]

    assert len({*drawn(), *drawn()}) == 6
    seeded = drawn(seed=4)
    assert len(set(seeded)) == 3
    assert drawn(seed=4) == seeded
    assert drawn(seed=5)[:2] == seeded[1:]


def test_completions_go_on_with_texts_as_they_stand(client, made):
    texts = [PROMPT, "The lamp is", "Anna writes that"]
    answered = client.completions.create(model="dialogue", prompt=texts, max_tokens=6)
    expected = [continued_by_peft(made / "base", made / "dialogue" / "adapter", text) for text in texts]
    assert any(text != text.strip() for text in expected), "blanks must matter"
    assert [choice.text for choice in sorted(answered.choices, key=lambda c: c.index)] == expected
    parts = client.completions.create(model="base", prompt=texts[1], stream=True, max_tokens=6)
    assert "".join(part.choices[0].text for part in parts) == continued_by_peft(made / "base", None, texts[1])


def test_a_reply_ends_before_a_word(client):
    options = {"model": "dialogue", "messages": HELLO, "max_tokens": 30}
    whole = said(client.chat.completions.create(**options))
    word = whole[8:11]
    assert len(word) == 3
    for stop in (word, ["never seen", word]):
        cut = client.chat.completions.create(**options, stop=stop)
        assert said(cut) == whole[: whole.index(word)]
        assert cut.choices[0].finish_reason == "stop"
    chunks = client.chat.completions.create(**options, stop=[whole + "and more"], stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole, "what was held back comes at the end"


def test_overlaps():
    assert _overlap("hello wor", "world") == 3
    assert _overlap("hello", "world") == 0
    assert _overlap("aab", "aabaab") == 3
    assert _overlap("world", "world") == 0, "a whole word is found, not held back"


PICTURE = [{"type": "image_url", "image_url": {"url": "x"}}]
LENGTHY = [{"role": "user", "content": answering.LENGTHY}]
WRONG = [
    ({"model": "dialoge"}, 404, "model_not_found", "there is no model `dialoge`"),
    ({"messages": []}, 400, None, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, 400, None, "messages.0.role"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, 400, None, "not the user's"),
    ({"messages": [{"role": "user", "content": PICTURE}]}, 400, None, "content"),
    ({"messages": LENGTHY}, 400, "context_length_exceeded", "reads 256 tokens"),
    ({"max_tokens": 256}, 400, "context_length_exceeded", "reads 256 tokens"),
    ({"max_tokens": 0}, 400, None, "max_tokens"),
    ({"temperature": 3}, 400, None, "temperature"),
    ({"n": 2}, 400, None, "n:"),
    ({"tools": []}, 400, None, "tools"),
    ({"presence_penalty": 1}, 400, None, "presence_penalty"),
    ({"stop": [""]}, 400, None, "stop"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "status", "code", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_requests_get_the_errors_of_that_api(change, status, code, words, client):
    asked = {"model": "dialogue", "messages": HELLO, **change}
    with pytest.raises(openai.APIStatusError) as refused:
        client.post("/chat/completions", body=asked, cast_to=object)
    assert refused.value.status_code == status
    assert (refused.value.body["code"], refused.value.body["type"]) == (code, "invalid_request_error")
    assert words in refused.value.body["message"]


def test_a_completion_that_is_too_long_says_so_of_its_prompt(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="dialogue", prompt=answering.LENGTHY)
    assert (refused.value.body["code"], refused.value.body["param"]) == ("context_length_exceeded", "prompt")
    with pytest.raises(openai.BadRequestError, match="the prompt is empty"):
        client.completions.create(model="dialogue", prompt="")


@pytest.mark.parametrize("name", ["classification", "summarization"])
def test_what_a_run_was_not_trained_on_is_refused(name, client):
    system, earlier = {"role": "system", "content": "Be kind."}, {"role": "assistant", "content": "It is."}
    for before in ([system], [{**system, "role": "developer"}], [*HELLO, earlier]):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model=name, messages=[*before, *HELLO])
        assert (refused.value.body["type"], refused.value.body["param"]) == ("invalid_request_error", "messages")
        assert "takes one user message, without a system message" in refused.value.body["message"]
        assert "each line is put into the prompt" in refused.value.body["message"]


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
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return (head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def test_what_is_no_request_at_all(address):
    status, body = raw(address, post(b"{"))
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    status, body = raw(address, post(b"{}", path="/v2/nothing"))
    assert (status, body["error"]["type"]) == (404, "invalid_request_error")
    status, body = raw(address, post(b"[" * (server.LARGEST_BODY + 1)))
    assert status == 413
    assert "larger than 4 MB" in body["error"]["message"]
    status, _ = raw(address, post(b"{}", host="evil.example"))
    assert status == 400, "a page of a browser that names itself so reaches nothing"


def test_two_hundred_clients_at_once_get_what_each_would_get_alone(address, client, made):
    texts = [f"How is the {topic} {n}?" for n in range(13) for topic in ("sport", "news")]
    models = ("dialogue", "base", "houlsby")
    alone = {
        (model, text): client.completions.create(model=model, prompt=text, max_tokens=6).choices[0].text
        for model in models
        for text in texts
    }
    assert len(set(alone.values())) > 20
    asked = [(models[i % 3], texts[i % len(texts)]) for i in range(200)]

    async def all_at_once() -> list[str]:
        many = openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0, timeout=120)

        async def one(model: str, text: str) -> str:
            return (await many.completions.create(model=model, prompt=text, max_tokens=6)).choices[0].text

        return await asyncio.gather(*(one(*pair) for pair in asked))

    assert asyncio.run(all_at_once()) == [alone[pair] for pair in asked]


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


def test_a_model_without_a_limit_is_given_one(tiny_models):
    with running(str(tiny_models("t5"))) as (address, engine):
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        name = next(iter(engine.stand.targets))
        for asked in ({"prompt": "x" * 9000}, {"prompt": "Hello.", "max_tokens": 9000}):
            with pytest.raises(openai.BadRequestError, match="this server reads 8192 tokens"):
                client.completions.create(model=name, **asked)


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


def test_a_model_with_a_template_and_one_that_reads_a_source(tmp_path, tiny_models):
    folder = tiny.save(tmp_path / "chatty", "llama", tokens=tiny.tokenizer(tiny.CHATML))
    with running(str(folder)) as (address, _):
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        answered = client.chat.completions.create(
            model="chatty", messages=[{"role": "system", "content": "Be kind."}, *HELLO], max_tokens=5
        )
        prompt = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHow is the sport 3?<|im_end|>\n"
        assert said(answered) == by_peft(folder, None, f"{prompt}<|im_start|>assistant\n", tokens=5)
        with pytest.raises(openai.BadRequestError, match="mark of its own"):
            client.chat.completions.create(model="chatty", messages=[{"role": "user", "content": "<|im_end|>"}])
    with running(str(tiny_models("t5"))) as (address, engine):
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        name = next(iter(engine.stand.targets))
        whole = client.completions.create(model=name, prompt="Hello.", max_tokens=5).choices[0].text
        parts = client.completions.create(model=name, prompt="Hello.", max_tokens=5, stream=True)
        assert "".join(part.choices[0].text for part in parts) == whole


def test_a_completion_reads_marks_as_marks(tmp_path):
    tokens = tiny.tokenizer(tiny.CHATML, bos=True)
    folder = tiny.save(tmp_path / "chatty", "llama", tokens=tokens)
    text = "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"
    with running(str(folder)) as (address, _):
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        for prompt in (text, f"<|bos|>{text}"):
            answered = client.completions.create(model="chatty", prompt=prompt, max_tokens=5)
            assert answered.choices[0].text == continued_by_peft(folder, None, f"<|bos|>{text}", tokens=5)
            assert answered.usage.prompt_tokens == len(tokens(text)["input_ids"])


def test_what_stands_on_different_bases_is_refused(made, tmp_path, tiny_models):
    other = shutil.copytree(made / "dialogue", tmp_path / "other")
    recipe = (other / "recipe.yaml").read_text()
    with contextlib.chdir(made):
        (other / "recipe.yaml").write_text(recipe.replace("bits: 32", "bits: 4"))
        with pytest.raises(RequestError, match="one server has one base"):
            side_by_side([examine("dialogue"), examine(str(other))])
        (other / "recipe.yaml").write_text(recipe)
        twin = shutil.copytree(other, tmp_path / "twin" / "dialogue")
        with pytest.raises(RequestError, match="two of them are called `dialogue`"):
            side_by_side([examine("dialogue"), examine(str(twin))])


def test_draws_follow_the_narrowed_distribution():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -9.0])
    generator = torch.Generator().manual_seed(0)
    decoding = Decoding(do_sample=True, temperature=2.0, top_k=3)
    counts = torch.zeros(5)
    for _ in range(4000):
        counts[_drawn(logits, decoding, generator)] += 1
    expected = (logits[:3] / 2).softmax(-1)
    assert counts[3:].sum() == 0
    assert torch.allclose(counts[:3] / 4000, expected, atol=0.03)
    narrow = Decoding(do_sample=True, top_p=0.6)
    assert {_drawn(logits, narrow, generator) for _ in range(50)} == {0}


@pytest.mark.parametrize("spread", [0.1, 3.0])  # the flat one needs more than the tokens that are looked at first
@pytest.mark.parametrize("narrowing", [{"top_p": 0.9}, {"top_k": 40}, {"top_k": 40, "top_p": 0.5}, {"top_p": 1e-9}])
def test_draws_are_narrowed_as_by_transformers(narrowing, spread):
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    scores = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * spread
    expected = scores[None]
    if "top_k" in narrowing:
        expected = TopKLogitsWarper(narrowing["top_k"])(None, expected)
    if "top_p" in narrowing:
        expected = TopPLogitsWarper(narrowing["top_p"])(None, expected)
    found = _likeliest(scores, Decoding(do_sample=True, **narrowing))
    assert sorted(found.tolist()) == expected[0].isfinite().nonzero().flatten().tolist()


def test_a_temperature_too_small_to_divide_by_takes_the_likeliest():
    logits = torch.tensor([1.0, 60.0, 59.9, -9.0])
    for temperature in (1e-300, 5e-324, 1e-6):
        decoding = Decoding(do_sample=True, temperature=temperature)
        assert _drawn(logits, decoding, torch.Generator().manual_seed(0)) == 1
    with pytest.raises(MeasurementError, match="not finite"):
        _drawn(logits.fill_(torch.nan), Decoding(do_sample=True), torch.Generator())


def test_the_verb_serves_until_it_is_stopped(made):
    process = subprocess.Popen(
        [sys.executable, "-m", "inlay.tuner", "serve", "dialogue", "--port", "0"],
        cwd=made,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    line = process.stderr.readline()
    found = re.search(r"serving  (http://127.0.0.1:\d+/v1)   models: base, dialogue ", line)
    assert found, line
    client = openai.OpenAI(base_url=found[1], api_key="none", max_retries=5)
    assert said(client.chat.completions.create(model="dialogue", messages=HELLO))
    asked = {"model": "base", "messages": HELLO, "max_tokens": 200, "stream": True}
    streams = [client.chat.completions.create(**asked) for _ in range(12)]
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert re.search(r"stopping; replies that are cut short or not begun: \d+", rest)
    with pytest.raises(openai.APIError, match="the server is stopping"):
        list(streams[-1])


def test_an_address_that_is_taken_is_told(made, monkeypatch):
    monkeypatch.chdir(made)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = inlay("serve", "base", "--port", taken.getsockname()[1])
    assert code == 2
    assert "cannot listen on 127.0.0.1" in err
    for options, words in ((("--port", 70000), "cannot listen"), (("--concurrency", 0), "--concurrency is 0")):
        code, _, err = inlay("serve", "base", *options)
        assert code == 2
        assert words in err
