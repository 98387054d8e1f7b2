"""The contract of `inlay.tuner.data.tasks`, held on every task in the folder.

A new file in `tuner/data/tasks/` is picked up here by itself: its module opens with a real data row, and that row, and
random ones of its columns, must come out as examples that training and benchmark share.
"""

from __future__ import annotations

import importlib
import json
import random

import pytest
import tiny

from inlay.eval import Choice, Example
from inlay.eval import metrics as metric_folder
from inlay.tuner.data import tasks
from inlay.tuner.data.columns import CHECKS, Columns
from inlay.tuner.data.formats import Row
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.data.tasks import check_prompt
from inlay.tuner.problems import RequestError

WORDS = ("the", "lamp", "flickers", "{0}", "{text}", "}", "{", "}}", "{document}", "ünïcode", "猫", "%s", "{}", "\\n")
EVERY = pytest.mark.parametrize("name", tasks.names())
ANSWERED = pytest.mark.parametrize("name", [name for name in tasks.names() if tasks.find(name).answers != "read"])
PROMPTED = [name for name in tasks.names() if tasks.find(name).default_prompt is not None]


def documented_row(name: str) -> dict[str, object]:
    """The data row in the module's docstring."""
    text = importlib.import_module(f"inlay.tuner.data.tasks.{name}").__doc__
    return json.loads(next(line for line in text.splitlines() if line.startswith("    {")))


def random_row(name: str, seed: int) -> dict[str, object]:
    """A row with something in each column, braces in its texts."""
    draw = random.Random(seed)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(3, 30)))

    def messages() -> list[dict[str, str]]:
        start = [{"role": "system", "content": text()}] if draw.random() < 0.5 else []
        pairs = ((("user", text()), ("assistant", text())) for _ in range(draw.randint(1, 5)))
        ends = [{"role": "user", "content": text()}] if draw.random() < 0.3 else []
        return [*start, *({"role": role, "content": said} for pair in pairs for role, said in pair), *ends]

    made = {"text": text, "texts": lambda: [text(), text()], "label": lambda: draw.choice("xyz"), "messages": messages}
    return {column: made[holds]() for column, holds in tasks.find(name).columns.items()}


def learned(name: str, rows: list[dict[str, object]], **options) -> tasks.Task:
    task = tasks.find(name)(**options)
    task.learn(rows)
    return task


def rows(name: str) -> list[dict[str, object]]:
    return [documented_row(name), *(random_row(name, seed) for seed in range(20))]


def answer(example: Example) -> str:
    return example.labels[example.gold] if isinstance(example, Choice) else example.references[0]


@EVERY
def test_the_docstring_shows_a_row_of_the_columns(name):
    task = tasks.find(name)
    row = documented_row(name)
    assert set(row) == set(task.columns)
    assert set(task.columns.values()) <= set(CHECKS)
    taken = Columns(task.columns).take(Row(row, "row.jsonl", 1)).values
    [example] = learned(name, [row]).examples(taken, "1", training=False)
    assert [example] == learned(name, [row]).examples(row, "1", training=False)
    assert json.dumps(answer(example))[1:-1] in json.dumps(row)


@EVERY
def test_every_column_is_named_in_words(name):
    text = importlib.import_module(f"inlay.tuner.data.tasks.{name}").__doc__
    assert all(f'"{column}"' in text for column in tasks.find(name).columns)
    assert tasks.find(name).__doc__
    assert set(tasks.find(name).metrics) <= set(metric_folder.names())


@ANSWERED
@pytest.mark.parametrize("chat", [None, tiny.CHATML], ids=["plain", "chatml"])
def test_s6_training_and_benchmark_share_the_prompt(name, chat):
    made = Renderer(tiny.tokenizer(chat), "causal")
    task = learned(name, rows(name))
    for row in rows(name):
        [example] = task.examples(row, "1", training=False)
        [trained] = task.examples(row, "1", training=True)
        rendered = made.rows(trained)[-1]
        prompt = made.prompt_ids(example.turns)
        assert rendered.ids[: rendered.answer_start] == prompt
        scored = made.answer_ids(example.turns, answer(example))
        assert rendered.ids[rendered.answer_start :][: len(scored)] == scored


@EVERY
def test_every_training_row_has_something_to_learn(name):
    task = learned(name, rows(name))
    made = Renderer(tiny.tokenizer(), "causal", "answer")
    for row in rows(name):
        for example in task.examples(row, "1", training=True):
            assert all(any(rendered.trained) for rendered in made.rows(example))


@ANSWERED
def test_cut_only_shortens_and_never_the_answer(name):
    task = learned(name, rows(name))
    for row in rows(name):
        [whole] = task.examples(row, "1", training=False)
        lengths = []
        for share in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0):
            shorter = task.cut(row, share)
            assert set(shorter) == set(row)
            [example] = task.examples(shorter, "1", training=False)
            assert answer(example) == answer(whole)
            lengths.append(len(json.dumps(shorter)))
        assert lengths == sorted(lengths)
        assert task.cut(row, 1.0) == row
    assert len(json.dumps(task.cut(random_row(name, 3), 0.0))) < len(json.dumps(random_row(name, 3)))


@pytest.mark.parametrize("name", PROMPTED)
def test_braces_in_the_data_stay_as_they_are(name):
    field = tasks.find(name).prompt_fields[0]
    row = {**documented_row(name), field: "a {b} {{c}} {} { } {0}"}
    task = learned(name, [row], prompt=f"Read {{{field}}} and {{{{think}}}}:")
    [example] = task.examples(row, "1", training=True)
    assert example.turns[0].text == "Read a {b} {{c}} {} { } {0} and {think}:"


@pytest.mark.parametrize("name", PROMPTED)
def test_a_wrong_prompt_template_is_told(name):
    task = tasks.find(name)
    field = task.prompt_fields[0]
    assert check_prompt(task, task.default_prompt) is None
    if task.free_fields:
        assert check_prompt(task, "{context} {question}") is None
        assert "`{target}` is the answer" in check_prompt(task, "{context} {target}")
    else:
        assert "unknown field `{nothing}`" in check_prompt(task, f"{{{field}}} {{nothing}}")
        assert f"`{{{field}}}`" in check_prompt(task, f"{{{field}}} {{nothing}}")
    assert f"never uses `{{{field}}}`" in check_prompt(task, "Answer:")
    assert "malformed" in check_prompt(task, f"{{{field}}} {{")
    assert "field `{}`" in check_prompt(task, f"{{{field}}} {{}}")
    for more in (f"{{{field}!r}}", f"{{{field}:>30}}"):
        assert f"write `{{{field}}}` alone" in check_prompt(task, more)


@pytest.mark.parametrize("name", sorted(set(tasks.names()) - set(PROMPTED)))
def test_a_conversation_has_no_prompt_template(name):
    assert "no prompt template" in check_prompt(tasks.find(name), "{messages}")


def test_labels_are_learned_or_given():
    data = [{"text": "a", "label": "2"}, {"text": "b", "label": "10"}]
    task = learned("classification", data)
    [example] = task.examples(data[0], "1", training=False)
    assert (example.labels, example.gold) == (("10", "2"), 1)
    task = learned("classification", data, labels={"2": "two", "10": "ten"})
    [example] = task.examples(data[0], "1", training=False)
    assert (example.labels, example.gold) == (("two", "ten"), 0)


def test_an_unknown_label_is_answered_with_the_nearest():
    task = learned("classification", [{"text": "", "label": "delivery"}, {"text": "", "label": "repair"}])
    with pytest.raises(RequestError) as caught:
        task.examples({"text": "a", "label": "deliverry"}, "4f", training=False)
    [problem] = caught.value.problems
    assert problem.message == "the label 'deliverry' is not among the 2 labels that are known"
    assert problem.help == "did you mean 'delivery'?"
    assert problem.path == "task.labels"


def test_a_dialogue_is_trained_on_every_reply_and_scored_on_the_last_or_on_all():
    row = {"messages": [{"role": "assistant" if text in "bd" else "user", "content": text} for text in "abcd"]}
    [trained] = tasks.find("dialogue")().examples(row, "1", training=True)
    assert [turn.trained for turn in trained.turns] == [False, True, False]
    assert trained.references == ("d",)
    [last] = tasks.find("dialogue")().examples(row, "1", training=False)
    assert last.turns == tuple(type(turn)(turn.role, turn.text) for turn in trained.turns)
    both = tasks.find("dialogue")(all_turns=True).examples(row, "1", training=False)
    assert [(example.id, len(example.turns), example.references) for example in both] == [
        ("1:0", 1, ("b",)),
        ("1:1", 3, ("d",)),
    ]


def test_the_first_reference_is_trained_on_and_all_are_compared_with():
    row = {"document": "long", "summary": ["short", "brief"]}
    [example] = tasks.find("summarization")().examples(row, "1", training=False)
    assert example.references == ("short", "brief")


def test_a_free_prompt_names_the_columns_that_a_row_must_have():
    prompt = "{context}\n\nQuestion: {question}\nAnswer:"
    columns = Columns(tasks.find("text_to_text").columns_for(prompt), {"target": "answers"})
    given = {"context": "It is red and old.", "question": "Which?", "answers": {"text": ["red", "old"]}, "id": 1}
    row = columns.take(Row(given, "squad.jsonl", 1)).values
    [example] = learned("text_to_text", [row], prompt=prompt).examples(row, "1", training=False)
    assert example.turns[0].text == "It is red and old.\n\nQuestion: Which?\nAnswer:"
    assert example.references == ("red", "old")
    shorter = learned("text_to_text", [row], prompt=prompt).cut(row, 0.5)
    assert (shorter["context"], shorter["question"]) == ("It is red", "Which?")
    assert "no column `question`" in columns.missing(Row({"context": "", "answers": ""}, "squad.jsonl", 1)).message


def test_an_unknown_task_is_answered_with_the_closest():
    with pytest.raises(LookupError, match="did you mean `summarization`"):
        tasks.find("sumarization")
