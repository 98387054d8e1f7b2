"""Few-shot prompts: training examples in front of what is asked, for the untouched base alone."""

from __future__ import annotations

import json

import pytest
import tiny
import tiny_runs
from tiny_runs import inlay, record

from inlay.eval import Choice, Reply, Turn
from inlay.tuner.data import tasks
from inlay.tuner.data.few_shot import behind, choose
from inlay.tuner.data.formats import Row
from inlay.tuner.data.rendering import Renderer


def rows(count: int, labels: str = "xyz") -> list[Row]:
    values = [{"text": f"text {'long ' * i}", "label": labels[i % len(labels)]} for i in range(count)]
    return [Row(row, "train.jsonl", line) for line, row in enumerate(values, start=1)]


def test_plain_examples_are_text_with_a_blank_line_between():
    made = Renderer(tiny.tokenizer(), "causal")
    shown = [Reply("1", (Turn("prompt", "A\n\nSummary:"),), ("a b",)), Reply("2", (Turn("prompt", "B:"),), ("b",))]
    asked = behind(made, shown, Reply("3", (Turn("prompt", "C:"),), ("c",)))
    assert made.prompt_text(asked.turns) == "A\n\nSummary: a b\n\nB: b\n\nC:"
    assert (asked.id, asked.references) == ("3", ("c",))
    talk = Reply("4", (Turn("user", "hi"), Turn("assistant", "yes"), Turn("user", "so?")), ("no",))
    text = made.prompt_text(behind(made, [talk], talk).turns)
    assert text == "User: hi\nBot: yes\nUser: so?\nBot: no\n\nUser: hi\nBot: yes\nUser: so?\nBot:"


def test_with_a_chat_template_examples_are_earlier_turns():
    made = Renderer(tiny.tokenizer(tiny.CHATML), "causal")
    asked = behind(made, [Reply("1", (Turn("user", "A"),), ("a",))], Reply("2", (Turn("user", "B"),), ("b",)))
    assert [(turn.role, turn.text) for turn in asked.turns] == [("user", "A"), ("assistant", "a"), ("user", "B")]


def test_a_system_message_stands_once_before_everything():
    made = Renderer(tiny.tokenizer(tiny.CHATML), "causal")
    talk = Reply("1", (Turn("system", "Be kind."), Turn("user", "A")), ("a",))
    roles = [turn.role for turn in behind(made, [talk, talk], talk).turns]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


def test_labels_take_turns_and_short_examples_come_first():
    task = tasks.find("classification")()
    task.learn([row.values for row in rows(6)])
    made = Renderer(tiny.tokenizer(), "causal")
    chosen = choose(task, made, rows(60), 6, seed=3)
    assert sorted(example.answer for example in chosen) == list("xxyyzz")
    assert chosen == choose(task, made, rows(60), 6, seed=3)
    assert chosen != choose(task, made, rows(60), 6, seed=4)
    assert all(isinstance(example, Choice) for example in chosen)
    lengths = [len(example.turns[0].text) for example in chosen]
    assert sum(lengths) / 6 < sum(len(row.values["text"]) for row in rows(60)) / 60
    assert len(choose(task, made, rows(3), 8, seed=0)) == 3


def test_a_run_scores_the_base_with_examples_beside_it(tiny_models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_runs.world(tmp_path, tiny_models("llama"))
    path = tiny_runs.recipe(tmp_path, "lora", "classification")
    code, out, err = inlay("run", path.name, "--output", "done", "--set", "eval.few_shot=2")
    assert code == 0, err
    found = record(tmp_path / "done")
    assert len(found["eval"]["few_shot"]) == 2
    assert found["metrics"]["few_shot"].keys() == found["metrics"]["base"].keys()
    assert found["metrics"]["few_shot_change"].keys() == found["metrics"]["change"].keys()
    assert "2-shot base" in out
    assert "Tuned against the 2-shot base" in (tmp_path / "done" / "report.html").read_text(encoding="utf-8")
    lines = (tmp_path / "done" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line)["few_shot_prediction"] for line in lines)
    code, _, err = inlay("run", path.name, "--set", "eval.few_shot=60")
    assert code == 2
    assert "eval.few_shot" in err
    assert "show fewer" in err


@pytest.mark.parametrize("method", ["lora", "none"])
def test_without_examples_nothing_is_said_of_them(method, tiny_models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_runs.world(tmp_path, tiny_models("llama"))
    path = tiny_runs.recipe(tmp_path, method, "classification")
    code, out, err = inlay("run", path.name, "--output", "done")
    assert code == 0, err
    assert "shot" not in out
    assert "shot base" not in (tmp_path / "done" / "report.html").read_text(encoding="utf-8")
