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

import answering
import openai
import pytest
import tiny
from answering import by_peft, continued_by_peft, predictions
from serving import HELLO, post, raw, running, said
from tiny_runs import inlay

from inlay.tuner.problems import RequestError
from inlay.tuner.serve import server
from inlay.tuner.serve.opened import examine
from inlay.tuner.serve.replies import _overlap
from inlay.tuner.serve.stand import side_by_side

TASKS = ("dialogue", "summarization", "classification")
PROMPT = "User: How is the sport 3?\nBot:"


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


def test_models_are_the_runs_and_their_base(client):
    assert [model.id for model in client.models.list()] == ["base", *TASKS, "houlsby"]
    assert client.models.retrieve("dialogue").id == "dialogue"
    for name in ("Qwen/Qwen2.5", "Qwen%2FQwen2.5"):  # as a base of the hub is called, as it stands or quoted
        with pytest.raises(openai.NotFoundError, match=r"there is no model `Qwen/Qwen2\.5`"):
            client.get(f"/models/{name}", cast_to=object)


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


def test_what_is_no_request_at_all(address):
    status, body = raw(address, post(b"{"))
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    status, body = raw(address, post(b"{}", path="/v2/nothing"))
    assert (status, body["error"]["type"]) == (404, "invalid_request_error")
    for change in ({"messages": [{"role": "user", "content": "\ud800"}]}, {"model": "\ud800"}, {"\ud800": 1}):
        status, body = raw(address, post(json.dumps({"model": "dialogue", "messages": HELLO, **change}).encode()))
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")
        assert "half a surrogate pair" in body["error"]["message"]
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


def test_a_model_without_a_limit_is_given_one(tiny_models):
    with running(str(tiny_models("t5"))) as (address, engine):
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        name = next(iter(engine.stand.targets))
        for asked in ({"prompt": "x" * 9000}, {"prompt": "Hello.", "max_tokens": 9000}):
            with pytest.raises(openai.BadRequestError, match="this server reads 8192 tokens"):
                client.completions.create(model=name, **asked)


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
