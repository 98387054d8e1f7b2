"""Rows in two splits (S36): found in any case, spacing and Unicode form, and kept out of training."""

from __future__ import annotations

import json

import pytest

from inlay.tuner import recipe
from inlay.tuner.problems import RequestError
from inlay.tuner.setting import survey

TRAIN = {f"The lamp {i} is broken.": f"Lamp {i}." for i in range(8)}
CASES = {
    "exact": ("The lamp 3 is broken.", "Lamp 3."),
    "case": ("THE lamp 3 is Broken.", "lamp 3."),
    "space": ("  The lamp 3\u00a0 is\tbroken. ", "Lamp  3."),
    "nfkc": ("Ｔｈｅ lamp ３ is broken.", "Lamp ③."),
}


def write(path, rows) -> str:
    lines = [json.dumps({"document": document, "summary": summary}) for document, summary in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path.name


@pytest.fixture
def prepared(tmp_path):
    """A function (test rows, lines of the task) -> the data of a recipe on the embedded base."""

    def prepare(test, more: str = "", train=None):
        names = write(tmp_path / "train.jsonl", train or TRAIN.items()), write(tmp_path / "test.jsonl", test)
        data = "{{train: {}, test: {}}}".format(*names)
        path = tmp_path / "r.yaml"
        path.write_text(
            f"name: r\nbase: {{model: embedded}}\nadapter: {{method: lora}}\n"
            f"task:\n  type: summarization\n  data: {data}\n  {more}\n",
            encoding="utf-8",
        )
        return survey(recipe.load(path)).data

    return prepare


@pytest.mark.parametrize("kind", CASES)
def test_s36_leak_detected(kind, prepared):
    data = prepared([CASES[kind], ("Another thing.", "Other.")])
    found = data.record.overlap["test"]
    assert (found.prompt_and_answer, found.prompt_only, data.record.dropped) == (1, 0, 1)
    assert data.record.rows == {"train": 7, "test": 2}
    assert len(data.training) == 7


def test_s36_the_same_prompt_with_another_answer_is_counted_apart(prepared):
    found = prepared([("The lamp 3 is broken.", "A fault.")]).record.overlap["test"]
    assert (found.prompt_and_answer, found.prompt_only) == (0, 1)


def test_overlap_can_be_kept_or_refused(prepared):
    leak = [CASES["exact"], ("Another thing.", "Other.")]
    kept = prepared(leak, "overlap: keep").record
    assert (kept.rows["train"], kept.dropped, kept.overlap["test"].prompt_and_answer) == (8, 0, 1)
    with pytest.raises(RequestError) as caught:
        prepared(leak, "overlap: stop")
    [problem] = caught.value.problems
    assert (problem.path, problem.line) == ("task.overlap", 4)
    assert "1 training rows stand in test too, 1 of them with the same answer" in problem.message


def test_a_test_set_that_holds_all_training_rows_is_refused(prepared):
    with pytest.raises(RequestError, match="none is left to train on"):
        prepared(list(TRAIN.items()))


def test_repeated_training_rows_are_counted_and_kept(prepared):
    rows = [*TRAIN.items(), ("The lamp 1 is  BROKEN.", "lamp 1.")]
    record = prepared([("Another thing.", "Other.")], train=rows).record
    assert (record.duplicates, record.rows["train"], record.dropped) == (1, 9, 0)


def test_a_reply_within_a_training_dialogue_counts(tmp_path):
    def talk(*texts: str) -> str:
        turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
        return json.dumps({"messages": turns}) + "\n"

    (tmp_path / "train.jsonl").write_text(talk("Hi", "Hello", "And?", "Well.") + talk("Bye", "So long"))
    (tmp_path / "test.jsonl").write_text(talk("hi", "HELLO"))
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: r\nbase: {model: embedded}\nadapter: {method: lora}\n"
        "task: {type: dialogue, data: {train: train.jsonl, test: test.jsonl}}\n"
    )
    record = survey(recipe.load(path)).data.record
    assert (record.overlap["test"].prompt_and_answer, record.dropped) == (1, 1)
