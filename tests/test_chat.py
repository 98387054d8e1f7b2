"""`inlay chat`: what is asked is what training showed, and nothing that a model writes can do more than be read.

References are transformers and PEFT on the same files, and a run's own predictions.jsonl.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import answering
import pytest
import tiny
import tiny_runs
from answering import by_peft, piped
from tiny_runs import inlay

from inlay.eval import Decoding
from inlay.tuner import cli
from inlay.tuner.data.columns import Columns
from inlay.tuner.data.reader import read_split
from inlay.tuner.problems import RequestError
from inlay.tuner.serve.chat import Talk
from inlay.tuner.serve.decoding import Wishes
from inlay.tuner.serve.opened import open_target
from inlay.tuner.serve.screen import Pipe, Terminal


@pytest.fixture(scope="module")
def made(tiny_models, tmp_path_factory):
    """A folder with a run of three tasks."""
    folder = tmp_path_factory.mktemp("made")
    return answering.made(folder, tiny_models("llama"), "dialogue", "summarization", "classification")


@pytest.fixture(scope="module")
def opened(made):
    """The run of dialogues, open."""
    with contextlib.chdir(made):
        return open_target("dialogue")


@pytest.fixture
def inside(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


class Stage:
    """A terminal of a test: keeps what appears, and may press Ctrl-C within a reply."""

    live = True

    def __init__(self) -> None:
        self.replies: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.pieces_before_interrupt: int | None = None

    @contextlib.contextmanager
    def reply(self, who):
        pieces: list[str] = []

        def tell(piece: str) -> None:
            if len([p for p in pieces if p]) == self.pieces_before_interrupt:
                raise KeyboardInterrupt
            pieces.append(piece)

        try:
            yield tell
        finally:
            self.replies.append((who, "".join(pieces)))

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def stage():
    return Stage()


def test_a_pipe_gets_a_line_for_a_line_of_one_conversation(inside, monkeypatch):
    lines = ["How is the sport 3?", "And the news?", ""]
    code, out, err = piped(monkeypatch, lines, "dialogue")
    assert (code, len(out), out[2]) == (0, 3, "")
    first = by_peft(inside / "base", inside / "dialogue" / "adapter", "User: How is the sport 3?\nBot:")
    second = by_peft(
        inside / "base",
        inside / "dialogue" / "adapter",
        f"User: How is the sport 3?\nBot: {first}<|end|>\nUser: And the news?\nBot:",
    )
    assert first
    assert second
    encoded = [text.replace("\n", "\\n").encode("ascii", "backslashreplace").decode() for text in (first, second)]
    assert out[:2] == encoded
    assert "\x1b" not in "".join(out) + err
    assert all(line.startswith("line ") for line in err.splitlines()), "nothing but notes on replies that were cut"


def test_base_is_the_untouched_base_and_the_adapter_is_back_afterwards(inside, opened, stage):
    talk = Talk(opened, stage)
    for line in ("How is the sport 3?", "/base", "/reset", "How is the sport 3?"):
        talk.hear(line)
    prompt = "User: How is the sport 3?\nBot:"
    tuned = by_peft(inside / "base", inside / "dialogue" / "adapter", prompt)
    base = by_peft(inside / "base", None, prompt)
    assert tuned != base, "the adapter must matter"
    assert stage.replies == [("tuned", tuned), ("base", base), ("tuned", tuned)]
    assert talk.unanswered == 0


def test_base_is_asked_with_the_same_draws(opened, stage):
    decoding = Decoding(max_new_tokens=6, do_sample=True, temperature=2.0, seed=3)
    talk = Talk(dataclasses.replace(opened, target=dataclasses.replace(opened.target, decoding=decoding)), stage)
    for line in ("One.", "Two.", "/base", "/base"):
        talk.hear(line)
    tuned, again, base, repeated = (text for _, text in stage.replies)
    assert base == repeated
    assert len({tuned, again, base}) == 3


@pytest.mark.parametrize("task", ["summarization", "classification"])
def test_a_line_of_another_task_is_put_into_its_prompt(task, inside, monkeypatch):
    field = {"summarization": "document", "classification": "text"}[task]
    rows = [json.loads(line) for line in (inside / f"{task}-test.jsonl").read_text().splitlines()]
    code, out, _ = piped(monkeypatch, [row[field] for row in rows], task)
    assert code == 0
    expected = [line["prediction"] for line in answering.predictions(inside / task)]
    assert out == [e.replace("\n", "\\n").encode("ascii", "backslashreplace").decode() for e in expected]


def test_a_line_for_a_run_that_read_texts_is_gone_on_with(inside, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(inside / "base", tmp_path / "base")
    rows = [json.dumps({"text": f"The lamp {n} is cold. Anna writes."}) + "\n" for n in range(9)]
    (tmp_path / "language_modeling.jsonl").write_text("".join(rows[:6]))
    (tmp_path / "language_modeling-test.jsonl").write_text("".join(rows[6:]))
    path = tiny_runs.recipe(tmp_path, "lora", "language_modeling", bits=32)
    code, _, err = inlay("run", path.name, "--output", "texts")
    assert code == 0, err
    code, out, err = piped(monkeypatch, ["The lamp 3 is"], "texts")
    assert code == 0, err
    expected = answering.continued_by_peft(tmp_path / "base", tmp_path / "texts" / "adapter", "The lamp 3 is")
    assert expected != expected.strip(), "blanks must matter"
    assert out == [expected.replace("\n", "\\n").encode("ascii", "backslashreplace").decode()]
    (tmp_path / "rows.jsonl").write_text('{"text": "The lamp 3 is"}\n{"prompt": "The lamp 3 is"}\n')
    code, _, err = inlay("generate", "texts", "--input", "rows.jsonl", "--output", "out.jsonl")
    assert code == 0, err
    found = [json.loads(line)["prediction"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found == [expected] * 2


def test_a_line_for_a_prompt_of_several_columns_is_the_whole_prompt(inside, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(inside / "base", tmp_path / "base")
    rows = [{"context": f"Order {n} is late.", "question": "Which?", "target": f"order {n}"} for n in range(9)]
    (tmp_path / "text_to_text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:6]))
    (tmp_path / "text_to_text-test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[6:]))
    path = tiny_runs.recipe(tmp_path, "lora", "text_to_text", bits=32)
    prompt = "task.prompt='{context} {question} Answer:'"
    code, _, err = inlay("run", path.name, "--output", "answers", "--set", prompt)
    assert code == 0, err
    code, out, err = piped(monkeypatch, ["Order 6 is late. Which? Answer:"], "answers")
    assert code == 0, err
    prediction = answering.predictions(tmp_path / "answers")[0]["prediction"]
    assert out == [prediction.replace("\n", "\\n").encode("ascii", "backslashreplace").decode()]


def test_data_are_not_needed_and_the_base_may_have_moved(made, tmp_path, monkeypatch):
    run = shutil.copytree(made / "classification", tmp_path / "moved")
    base = shutil.copytree(made / "base", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    prompts = [line["prompt"].removesuffix("\n\nLabel:") for line in answering.predictions(run)]
    code, out, err = piped(monkeypatch, prompts, "moved", "--base", base)
    assert code == 0, err
    assert out == [line["prediction"] for line in answering.predictions(run)]
    code, out, err = piped(monkeypatch, prompts, "moved")
    assert (code, out) == (3, [])  # the name could be one of the hub, which cannot be asked
    assert "`base`" in err
    assert "--base MODEL" in err


def test_an_adapter_alone_is_put_on_the_base_noted_beside_it(made, tmp_path, monkeypatch, tiny_models):
    monkeypatch.chdir(tmp_path)
    adapter = shutil.copytree(made / "dialogue" / "adapter", tmp_path / "theirs")
    shutil.copytree(made / "base", tmp_path / "base")
    expected = by_peft(made / "base", adapter, "User: Hello.\nBot:", tokens=4)
    code, out, err = piped(monkeypatch, ["Hello."], "theirs", "--max-new-tokens", 4)
    assert code == 0, err
    assert out == [expected.replace("\n", "\\n").encode("ascii", "backslashreplace").decode()]
    code, _, err = piped(monkeypatch, ["Hello."], "theirs", "--base", tiny_models("llama", seed=5))
    assert code == 2
    assert "is not the one this adapter was trained on" in err
    (adapter / "base.json").unlink()
    code, _, err = piped(monkeypatch, ["Hello."], "theirs")
    assert code == 2
    assert "--base MODEL" in err


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_as_it_is_keeps_its_precision_and_its_template(dtype, tmp_path, stage):
    import torch
    from transformers import AutoModelForCausalLM

    folder = tiny.save(tmp_path / "model", "llama", tokens=tiny.tokenizer(tiny.CHATML))
    AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).save_pretrained(folder)
    opened = open_target(str(folder), wishes=Wishes(max_new_tokens=12))
    talk = Talk(opened, stage)
    talk.hear("Hello.")
    prompt = "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"
    expected = by_peft(folder, None, prompt, tokens=12, dtype=getattr(torch, dtype))
    assert stage.replies == [("", expected)]
    assert {str(p.dtype) for p in opened.base.model.parameters()} == {f"torch.{dtype}"}
    talk.hear("/base")
    assert "has no adapter" in stage.notes[-1]


def test_a_model_that_reads_a_source_streams_too(tiny_models, stage):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = tiny_models("t5")
    Talk(open_target(str(folder), wishes=Wishes(max_new_tokens=5)), stage).hear("Hello.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    written = model.generate(**tokenizer("User: Hello.\nBot:", return_tensors="pt"), max_new_tokens=5, do_sample=False)
    assert stage.replies == [("", tokenizer.decode(written[0], skip_special_tokens=True).strip())]


def test_reset_begins_anew_and_save_writes_what_the_dialogue_task_reads(opened, stage, tmp_path):
    talk = Talk(opened, stage)
    saved = tmp_path / "talk one.jsonl"
    talk.hear("/save nothing.jsonl")
    assert "nothing was saved" in stage.notes[-1]
    for line in ("One.", "//two\u202e", "/base", f"/save {saved}"):
        talk.hear(line)
    (row,) = read_split(saved, "talk", Columns({"messages": "messages"}))
    replies = [text for who, text in stage.replies if who == "tuned"]
    said = [("user", "One."), ("assistant", replies[0]), ("user", "/two\u202e"), ("assistant", replies[1])]
    assert row.values["messages"] == [{"role": role, "content": text} for role, text in said]
    before = saved.read_bytes()
    talk.hear(f"/save {saved}")
    assert "exists already" in stage.notes[-1]
    talk.hear("/save /no/such/folder/x.jsonl")
    assert "cannot be written" in stage.notes[-1]
    assert saved.read_bytes() == before
    talk.hear("/reset")
    talk.hear("One.")
    assert stage.replies[-1] == ("tuned", replies[0])


def test_exchanges_that_stand_alone_are_saved_each_as_a_conversation(inside, stage, tmp_path):
    talk = Talk(open_target("summarization"), stage)
    for line in ("Anna writes.", "Ben answers.", f"/save {tmp_path / 'x.jsonl'}"):
        talk.hear(line)
    rows = list(read_split(tmp_path / "x.jsonl", "x", Columns({"messages": "messages"})))
    assert [row.values["messages"][0]["content"] for row in rows] == ["Anna writes.", "Ben answers."]


WRONG = [("/rest", "did you mean `/reset`?"), ("/xyz", "/help lists"), ("/base", "nothing has been asked")]


@pytest.mark.parametrize(("line", "words"), WRONG)
def test_a_wrong_command_is_told_and_never_asked(line, words, opened, stage):
    talk = Talk(opened, stage)
    talk.hear(line)
    assert words in stage.notes[-1]
    assert stage.replies == []
    assert talk.unanswered == 1


def test_help_names_every_command(opened, stage):
    talk = Talk(opened, stage)
    talk.hear("/help")
    for name in ("/base", "/reset", "/save FILE", "/help", "Ctrl-C", "Ctrl-D"):
        assert name in stage.notes[-1]


def test_what_is_too_long_is_told_in_a_line_and_not_asked(inside, monkeypatch):
    code, out, err = piped(monkeypatch, ["Hello.", answering.LENGTHY], "dialogue")
    assert code == 1
    assert len(out) == 2
    assert out[1] == ""
    told = [line for line in err.splitlines() if "not asked" in line]
    assert len(told) == 1
    assert re.fullmatch(r"line 2: not asked: the prompt has \d+ tokens; 250 fit", told[0])


def test_bytes_that_are_no_text_are_told(inside, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\nHello.\n"), encoding="utf-8"))
    code, out, err = inlay("chat", "dialogue")
    assert code == 1
    assert "line 1: this is not UTF-8 text" in err
    assert out.startswith("\n")
    assert out.count("\n") == 2


def test_the_oldest_turns_are_left_out_only_after_saying_so(inside, opened, stage):
    talk = Talk(opened, stage)
    lines = [f"The {word} is cold and the water is cold. " * 7 for word in ("lamp", "film", "news")]
    for line in lines:
        talk.hear(line)
    (told,) = [note for note in stage.notes if "left out" in note]
    assert "longer than the 256 tokens" in told
    assert "oldest 2 turns" in told
    second = stage.replies[1][1]
    prompt = f"User: {lines[1].strip()}\nBot: {second}<|end|>\nUser: {lines[2].strip()}\nBot:"
    assert stage.replies[2] == ("tuned", by_peft(inside / "base", inside / "dialogue" / "adapter", prompt))


def test_ctrl_c_ends_a_reply_and_not_the_chat(inside, opened, stage):
    talk = Talk(opened, stage)
    talk.hear("How is the sport 3?")
    whole = stage.replies[0][1]
    for line in ("/reset", "/base"):
        talk.hear(line)
    talk.hear("/reset")
    stage.pieces_before_interrupt = 1
    talk.hear("How is the sport 3?")
    begun = stage.replies[-1][1]
    assert begun
    assert begun != whole
    assert whole.startswith(begun)
    talk.hear("/base")  # is interrupted too, with the adapter off
    stage.pieces_before_interrupt = None
    talk.hear("And?")
    adapter = inside / "dialogue" / "adapter"
    prompt = f"User: How is the sport 3?\nBot: {begun}<|end|>\nUser: And?\nBot:"
    assert stage.replies[-1] == ("tuned", by_peft(inside / "base", adapter, prompt))


def test_ctrl_c_in_a_pipe_ends_it_all(opened, stage):
    stage.live, stage.pieces_before_interrupt = False, 0
    with pytest.raises(KeyboardInterrupt):
        Talk(opened, stage).hear("How is the sport 3?")


HOSTILE = "a\x1b[31mred\x07\x9b2J\u202eevil\r\nb\tc\x00"


@pytest.mark.parametrize("place", [Pipe, Terminal])
def test_what_a_terminal_would_obey_is_written_out(place, capsys):
    screen = place()
    with screen.reply("tuned") as tell:
        for character in HOSTILE.replace("\r\n", "\n"):
            tell(character)
    screen.note(HOSTILE)
    out, err = capsys.readouterr()
    for text in (out, err):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert "\\x1b[31mred\\x07\\x9b2J\\u202eevil" in text
    assert out.count("\n") == (1 if place is Pipe else 2)
    assert ("\\nb\tc" in out) == (place is Pipe)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed", "3"], "--seed has no effect"),
        (["--top-p", "2"], "--top-p is 2.0; expected a value that is less than or equal to 1"),
        (["--temperature", "-1"], "--temperature is -1.0"),
        (["--temperature", "0", "--top-k", "3"], "--temperature 0 takes the likeliest"),
        (["--max-new-tokens", "0"], "--max-new-tokens is 0"),
        (["--max-new-tokens", "256"], "leaves no room for a prompt: 256 fit in all"),
        (["--temperature", "1", "--seed", "-1"], "--seed is -1"),
    ],
)
def test_wrong_decoding_is_refused(options, words, inside, monkeypatch):
    code, out, err = piped(monkeypatch, ["Hello."], "dialogue", *options)
    assert (code, out) == (2, [])
    assert words in err


def test_decoding_as_asked():
    asked = Decoding(max_new_tokens=6, num_beams=3, seed=8)
    assert Wishes().applied(asked, None) == asked
    assert Wishes(temperature=0.5).applied(asked, None) == Decoding(6, True, 1, 0.5, seed=8)
    assert Wishes(top_k=4, seed=1, max_new_tokens=9).applied(asked, 10) == Decoding(9, True, 1, top_k=4, seed=1)
    drawn = Decoding(do_sample=True, temperature=2.0)
    assert not Wishes(temperature=0).applied(drawn, None).do_sample
    with pytest.raises(RequestError):
        Wishes(max_new_tokens=10).applied(asked, 10)


def test_draws_depend_on_the_seed_alone(inside, monkeypatch):
    def said(seed: int) -> list[str]:
        return piped(monkeypatch, ["One.", "Two."], "dialogue", "--temperature", 2, "--seed", seed)[1]

    assert said(1) == said(1) != said(2)


@pytest.mark.parametrize("target", ["nothing-here/at/all", "base.yaml"])
def test_what_is_not_there_is_told(target, inside, monkeypatch):
    code, out, err = piped(monkeypatch, ["Hello."], target)
    assert (code in (2, 3), out) == (True, [])
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_base_is_for_adapters(inside, monkeypatch):
    code, _, err = piped(monkeypatch, [], "./base", "--base", "./base")
    assert code == 2
    assert "neither a run nor an adapter" in err


class Keyboard:
    """`inlay chat` at a terminal of its own."""

    def __init__(self, folder, *arguments: str) -> None:
        self._side, other = pty.openpty()
        program = [sys.executable, "-m", "inlay.tuner", "chat", *arguments]
        environment = {**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            program, cwd=folder, stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True,
            preexec_fn=lambda: _control(0),
        )  # fmt: skip
        os.close(other)
        self.seen = ""

    def until(self, pattern: str, seconds: float = 90) -> str:
        """What appears up to and with `pattern`."""
        end, before = time.monotonic() + seconds, len(self.seen)
        while not re.search(pattern, self.seen[before:]):
            assert time.monotonic() < end, self.seen
            if select.select([self._side], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self._side, 4096).decode(errors="replace")
                except OSError:  # the other side is closed
                    assert re.search(pattern, self.seen[before:]), self.seen
        return self.seen[before:]

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())

    def until_pressed(self, key: str, pattern: str) -> None:
        """Presses a key until `pattern` appears: a signal between the prompt and Python's waiting for keys is seen at
        the next one."""
        before = len(self.seen)
        for _ in range(10):
            self.type(key)
            with contextlib.suppress(AssertionError):
                self.until(pattern, seconds=5)
                return
        raise AssertionError(self.seen[before:])


def _control(terminal: int) -> None:
    """Makes it the terminal that signals of the new session come from; a test run in the background ignores them."""
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_at_a_terminal(made):
    keys = Keyboard(made, "dialogue", "--max-new-tokens", "150")
    head = keys.until("> $")
    assert "tuned: LoRA" in head
    assert "at most 150 tokens" in head
    keys.type("How is the sport 3?\r")
    keys.until("tuned  [^\r\n]+")
    keys.type("\x03")  # Ctrl-C, in the reply
    keys.until("> $")
    keys.until_pressed("\x03", "Ctrl-D ends the chat[^>]*> $")  # Ctrl-C, at the prompt
    keys.type("/nope\r")
    assert "there is no command" in keys.until("> $")
    keys.type("/base\r")
    keys.until("base   [^\r\n]+")
    keys.until("> $")
    keys.type("\x04")
    assert keys.process.wait(timeout=60) == 0
    assert "Traceback" not in keys.seen
    assert not re.search("\x1b\\[[0-9;]*m", keys.seen), "no colours"


def test_chat_and_generate_are_on_the_command_line(capsys):
    for verb in ("chat", "generate"):
        with pytest.raises(SystemExit) as ended:
            cli.main([verb, "--help"])
        assert ended.value.code == 0
        assert "--max-new-tokens" in capsys.readouterr().out
