"""Wrong recipes: each mistake is told once, at its line and path, with the nearest fix, and all are told in one go."""

from __future__ import annotations

import pytest
from wrong_recipes import GOOD, cases, mistakes

from inlay.tuner import recipe
from inlay.tuner.problems import RequestError
from inlay.tuner.recipe import aliases
from inlay.tuner.recipe.explain import Words
from inlay.tuner.recipe.loader import parse


@pytest.mark.parametrize("case", cases().values(), ids=list(cases()))
def test_one_mistake_gives_one_clear_problem(case, tmp_path):
    old, new, line, path, words = case
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    (problem,) = mistakes(text, tmp_path)
    assert (problem.file, problem.line, problem.path) == ("wrong.yaml", line, path)
    assert words in f"{problem.message}\n{problem.note}\n{problem.help}"
    assert problem.message[0].islower() or problem.message[0] == "`"
    assert not problem.message.endswith(".")
    if line:
        marked = text.splitlines()[line - 1][problem.column - 1 :][: problem.width]
        assert marked.strip("'\"")
        assert marked in text


def test_the_good_recipe_is_good(tmp_path):
    assert parse(GOOD.encode(), "good.yaml", tmp_path).adapter.options.r == 8


def test_the_span_covers_exactly_what_is_wrong(tmp_path):
    (problem,) = mistakes(GOOD.replace("max_steps: 5", "lr_scheduler: cosin   # why"), tmp_path)
    assert str(problem) == (
        "error: `train.lr_scheduler` is the text `cosin`; expected one of"
        " `linear`, `cosine`, `constant`, `constant_with_warmup`\n"
        "  --> wrong.yaml:13:17 (train.lr_scheduler)\n"
        "    |\n"
        " 13 |   lr_scheduler: cosin   # why\n"
        "    |                 ^^^^^\n"
        "    |\n"
        "help: did you mean `cosine`?"
    )


def test_all_mistakes_are_told_at_once(tmp_path):
    """Of every kind: YAML, unknown keys, wrong values, rules over several fields, paths, and overrides."""
    text = """\
name: bad one
base:
  model: https://example.org/model
  quantization: {bits: 5}
adapter:
  method: lora
  lora_rank: 16
task:
  type: summarization
  data: {train: ../secret.jsonl}
  columns: {doc: d}
train:
  max_steps: 10
  epochs: 3
  max_steps: 20
  report_to: [wandb, tensorbord]
eval:
  metrics: [blue]
  decoding: {temperature: 0.7}
"""
    found = mistakes(text, tmp_path, ("train.warmup_ratio=2", "nonsense", "eval.splt=test"))
    assert [(problem.line, problem.path) for problem in found] == [
        (0, ""),
        (0, "train.warmup_ratio"),
        (0, "eval.splt"),
        (1, "name"),
        (3, "base.model"),
        (4, "base.quantization.bits"),
        (7, "adapter.lora_rank"),
        (10, "task.data.train"),
        (11, "task.columns.doc"),
        (13, "train.max_steps"),
        (15, ""),
        (16, "train.report_to[1]"),
        (17, "eval.split"),
        (18, "eval.metrics[0]"),
        (19, "eval.decoding.temperature"),
    ]


def test_every_foreign_word_leads_to_something_that_exists(tmp_path):
    words = Words("lora")
    for word, (_, here) in aliases.COUNTERPARTS.items():
        path, _, value = here.partition(":")
        assert tuple(path.split(".")) in words.schemas, word
        assert not words.homes(word) or word == "batch_size", f"{word} is a word of ours"
        if value:
            parse(GOOD.encode(), "good.yaml", tmp_path, (f"{path}={value.strip()}",))
    for word in aliases.ABSENT:
        assert not words.homes(word), f"{word} is a word of ours"
        assert word not in aliases.COUNTERPARTS


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("quickstrat", "did you mean `quickstart`?"),
        ("quickstart.yaml", "did you mean `quickstart`?"),
        ("x", "`inlay ls"),
    ],
)
def test_an_unknown_recipe_is_answered_with_the_nearest(given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError) as caught:
        recipe.load(given)
    assert words in caught.value.problems[0].help


def test_a_folder_is_not_a_recipe(tmp_path):
    with pytest.raises(RequestError, match="a folder"):
        recipe.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("max_steps: 5", "early_stopping_patience: 2\n  eval_stepz: 5", "train.eval_stepz"),
        ("split: test", "decoding: {do_sample: yes, temperature: 0.7}", "eval.decoding.do_sample"),
        ("data: embedded", "data: {train: rows.jsonl, draw: {test: 2}}", "task.data.draw.test"),
        ("data: embedded", "data: {trian: rows.jsonl}", "task.data.trian"),
        ("model: embedded", "model_name_or_path: gpt2\n  revision: main", "base.model_name_or_path"),
        ("  type: summarization\n", "  labels: {a: b}\n  columns: {text: t}\n", "task.type"),
        ("type: summarization", "tpye: summarization\n  labels: {a: b}", "task.tpye"),
    ],
)
def test_one_mistake_does_not_raise_false_alarms_elsewhere(old, new, path, tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (problem,) = mistakes(GOOD.replace(old, new), tmp_path)
    assert problem.path == path
