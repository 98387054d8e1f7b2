"""Data as a run uses it: nothing disappears in silence, cuts spare the answer, and every method gets the same rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny

from inlay.eval import Reply
from inlay.tuner import setting
from inlay.tuner.data import tasks
from inlay.tuner.data.prepared import HALVINGS, Limits, Prepared, prepare
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.problems import RequestError
from inlay.tuner.recipe import Recipe, load

RECIPE = """\
name: prepared
base: {{model: {model}, quantization: {{bits: 32}}}}
adapter: {{method: {method}}}
task: {{type: {task}, data: {{train: train.jsonl, test: test.jsonl}}}}
"""


def summary(words: int, answer: str = "Ben writes", number: int = 0) -> dict[str, object]:
    return {"document": " ".join([f"{number} lamp"] * words), "summary": answer}


def dialogue(pairs: int, words: int = 4) -> dict[str, object]:
    said = ((f"question {i} " + "lamp " * words, f"answer {i}") for i in range(pairs))
    roles = ("user", "assistant")
    return {"messages": [{"role": r, "content": t} for pair in said for r, t in zip(roles, pair, strict=True)]}


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def recipe(tmp_path):
    """A function (training rows, test rows, overrides) -> recipe on files in a folder."""

    def make(
        training: Sequence[dict[str, object]],
        test: Sequence[dict[str, object]] = (),
        *overrides: str,
        task: str = "summarization",
        model: str = "embedded",
        method: str = "lora",
    ) -> Recipe:
        write(tmp_path / "train.jsonl", training)
        write(tmp_path / "test.jsonl", test or [dialogue(1) if task == "dialogue" else summary(1, "so", number=99)])
        (tmp_path / "recipe.yaml").write_text(RECIPE.format(task=task, model="embedded", method=method))
        return load(tmp_path / "recipe.yaml", [*overrides, f"base.model={model}"])

    return make


def prepared(recipe: Recipe, training: int = 64, context: int | None = 256, new_tokens: int = 16) -> Prepared:
    task = tasks.find(recipe.task.type)(prompt=recipe.task.prompt, labels=recipe.task.labels)
    limits = Limits(training=training, context=context, new_tokens=new_tokens)
    return prepare(recipe, task, Renderer(tiny.tokenizer(), "causal"), limits, ("test",))


def test_s3_a_row_that_is_too_long_is_left_out_and_counted(recipe):
    found = prepared(recipe([summary(5, number=i) for i in range(24)] + [summary(200)]))
    assert found.record.rows == {"train": 24, "test": 1}
    assert found.record.left_out == {"train": 1, "test": 0}
    assert found.record.documents_cut == {"train": 0, "test": 0}
    assert len(found.training) == 24
    assert all(row.ids[-1] == 0 and row.trained[-1] for row in found.training)
    assert found.record.tokens["train"] == sum(len(row.ids) for row in found.training)
    assert found.record.trained_tokens == sum(sum(row.trained) for row in found.training)


def test_s3_many_rows_that_are_too_long_stop_the_run(recipe):
    made = recipe([summary(5)] * 10 + [summary(30, "so " * 30), summary(40, "so " * 40)])
    with pytest.raises(RequestError) as caught:
        prepared(made)
    [problem] = caught.value.problems
    [row] = Renderer(tiny.tokenizer(), "causal").rows(
        tasks.find("summarization")().examples(summary(40, "so " * 40), "", training=True)[0]
    )
    assert "2 of 12 train rows are longer than 64 tokens" in problem.message
    assert f"the longest has {len(row.ids)}" in problem.message
    assert "at most 5% may be left out" in problem.message
    assert problem.path == "train.max_length"
    assert "task.truncate" in problem.help
    assert caught.value.exit_code == 2


def test_s3_the_share_that_may_be_left_out_is_the_recipes(recipe):
    rows = [summary(5)] * 10 + [summary(200)] * 2
    found = prepared(recipe(rows, (), "task.max_left_out=0.17"))
    assert found.record.left_out["train"] == 2
    with pytest.raises(RequestError):
        prepared(recipe(rows, (), "task.max_left_out=0.16"))


@pytest.mark.parametrize("share", ["0.05", "1"])
def test_s4_no_row_fits(recipe, share):
    with pytest.raises(RequestError) as caught:
        prepared(recipe([summary(200)] * 3, (), f"task.max_left_out={share}"), context=None)
    assert "3 of 3 train rows" in caught.value.problems[0].message
    assert "no row fits" in caught.value.problems[0].help


def test_s4_both_splits_are_told_at_once(recipe):
    with pytest.raises(RequestError) as caught:
        prepared(recipe([summary(200)] * 3, [summary(200), summary(2)], "task.overlap=keep"), context=100)
    assert [problem.path for problem in caught.value.problems] == ["train.max_length", "task.max_left_out"]
    assert "1 of 2 test rows are longer than 100 tokens" in caught.value.problems[1].message
    assert "eval.decoding.max_new_tokens" in caught.value.problems[1].help
    assert "train.max_length" not in caught.value.problems[1].help


def test_an_answer_alone_that_is_too_long_is_never_cut(recipe):
    made = recipe([summary(5)] * 30 + [summary(1, "so " * 200)], (), "task.truncate=true")
    found = prepared(made)
    assert found.record.left_out["train"] == 1
    assert found.record.documents_cut["train"] == 0


def test_a_document_is_cut_as_little_as_needed(recipe):
    rows = [summary(words, f"answer {words}") for words in (5, 40, 60, 100, 333)]
    found = prepared(recipe(rows, (), "task.truncate=true", "task.max_left_out=0"))
    assert found.record.documents_cut == {"train": 4, "test": 0}
    made = Renderer(tiny.tokenizer(), "causal")
    task = tasks.find("summarization")()
    for row, kept in zip(rows, found.training, strict=True):
        text = made.tokenizer.decode(kept.ids)
        document, answer = text.split("\n\nSummary: ")
        assert answer == f"{row['summary']}<|end|>"
        assert str(row["document"]).startswith(document)
        if document == row["document"]:
            continue
        assert len(kept.ids) <= 64
        more = len(document) + 1 + len(str(row["document"])) // 2**HALVINGS
        longer = {**row, "document": str(row["document"])[: more + 1]}
        [rendered] = made.rows(task.examples(longer, "", training=True)[0])
        assert len(rendered.ids) > 64


def test_a_dialogue_loses_its_oldest_exchanges_and_no_more_than_needed(recipe):
    made = Renderer(tiny.tokenizer(), "causal")
    task = tasks.find("dialogue")()
    found = prepared(recipe([dialogue(9)], (), "task.truncate=true", "task.overlap=keep", task="dialogue"))
    [kept] = found.training
    text = made.tokenizer.decode(kept.ids)
    assert text.endswith("Bot: answer 8<|end|>")
    assert text.startswith("User: question ")
    pairs = text.count("question")
    assert text.startswith(f"User: question {9 - pairs} ")
    one_more = {"messages": dialogue(9)["messages"][-2 * (pairs + 1) :]}
    assert len(kept.ids) <= 64 < len(made.rows(task.examples(one_more, "", training=True)[0])[0].ids)


def test_a_test_row_leaves_room_for_its_answer_and_for_generation(recipe):
    made = Renderer(tiny.tokenizer(), "causal")
    test = [summary(4, "so " * 30), summary(30, "so")]
    found = prepared(recipe([summary(4)], test, "task.truncate=true", "task.overlap=keep"), context=100, new_tokens=40)
    assert found.record.documents_cut["test"] == 1
    for example in found.examples["test"]:
        prompt, answer = made.prompt_ids(example.turns), made.answer_ids(example.turns, example.references[0])
        assert len(prompt) + max(len(answer), 40) <= 100
    assert found.examples["test"][0].references == ("so " * 30,)


def test_the_limit_is_inclusive(recipe):
    [row] = prepared(recipe([summary(5)]), training=1000).training
    assert prepared(recipe([summary(5)]), training=len(row.ids)).record.left_out["train"] == 0
    with pytest.raises(RequestError):
        prepared(recipe([summary(5)]), training=len(row.ids) - 1)


def test_duplicates_have_ids_of_their_own(recipe):
    found = prepared(recipe([summary(2), summary(3), summary(2), summary(2)]))
    ids = [row.id for row in found.training]
    assert len(set(ids)) == 4
    assert ids[2:] == [f"{ids[0]}~2", f"{ids[0]}~3"]


@pytest.mark.parametrize("context", [None, 256])
def test_a_row_with_an_unknown_label_is_named(recipe, context):
    training = [{"text": "a", "label": "repair"}, {"text": "b", "label": "delivery"}]
    unknown = {"text": "c", "label": "repairs"}
    with pytest.raises(RequestError) as caught:
        prepared(recipe(training, [training[0], unknown], task="classification"), context=context)
    [problem] = caught.value.problems
    assert (problem.file, problem.line) == ("test.jsonl", 2)
    assert "the label 'repairs'" in problem.message


def test_a_prompt_from_the_recipe_names_no_ids(recipe):
    """The id of a row is its content: another prompt, the same row."""
    first, second = (prepared(recipe([summary(2)], (), *more)) for more in ((), ("task.prompt=So, {document}:",)))
    assert first.training[0].id == second.training[0].id
    assert first.training[0].ids != second.training[0].ids


def test_the_record_shows_the_first_row_as_the_model_sees_it(recipe):
    found = prepared(recipe([summary(2)]))
    assert found.record.first_row == [("0 lamp 0 lamp\n\nSummary:", False), (" Ben writes<|end|>", True)]


@pytest.mark.parametrize("shape", ["gpt2", "gpt_neo"])
def test_s4_rows_used_recorded_and_a_prefix_has_its_room(recipe, tiny_models, shape):
    """With virtual tokens, text and new tokens, no row outgrows a context of 256; without them the rows are the same
    for every method."""
    rows = [summary(words, number=words) for words in (3, 30, 49, 50, 51, 52, 90)]
    tests = [{**row, "summary": "Anna writes"} for row in rows]
    options = ("task.truncate=true", "task.overlap=keep", "eval.decoding.max_new_tokens=40")

    def survey(method: str, *more: str) -> setting.Setting:
        made = recipe(rows, tests, *options, *more, model=str(tiny_models(shape)), method=method)
        return setting.survey(made)

    taken, longest = 30, 0
    found = survey("prefix", f"adapter.num_virtual_tokens={taken}")
    for row in found.data.training:
        assert taken + len(row.ids) <= 256
        longest = max(longest, len(row.ids))
    for example in found.data.examples["test"]:
        assert isinstance(example, Reply)
        assert taken + len(found.renderer.prompt_ids(example.turns)) + 40 <= 256
    assert found.data.record.documents_cut["train"] > 0
    assert longest > 256 - taken - 3
    records = [survey(method).data.record for method in ("lora", "none")]
    assert len({record.rows_sha256 for record in records}) == 1
    assert len({json.dumps(record.tokens) for record in records}) == 1
    assert records[0].tokens["train"] > found.data.record.tokens["train"]


def test_a_max_length_beyond_the_context_is_refused(recipe, tiny_models):
    made = recipe(
        [summary(2)],
        (),
        "train.max_length=250",
        "adapter.num_virtual_tokens=7",
        model=str(tiny_models("gpt2")),
        method="prefix",
    )
    with pytest.raises(RequestError) as caught:
        setting.survey(made)
    [problem] = caught.value.problems
    assert problem.path == "train.max_length"
    assert "a context of 256 tokens, of which the adapter takes 7" in problem.message
    assert problem.help == "set it to 249 or less"
