"""Mistakes in a comparison's file: one clear line each, with the place, before anything is loaded."""

from __future__ import annotations

import comparisons
import pytest
from tiny_runs import inlay

GOOD = """\
name: spec
recipe: recipe.yaml
seeds: 1
rows:
  - adapter: {method: lora}
  - adapter: {method: ia3}
"""
WRONG = {
    "unknown key": (GOOD.replace("seeds: 1", "seed: 1"), "spec.yaml:3", "unknown key `seed`", "did you mean `seeds`?"),
    "unknown key of a row": (GOOD + "    trian: {}\n", "spec.yaml:7", "unknown key `trian`", "did you mean `train`?"),
    "no rows": (GOOD.partition("rows")[0], "spec.yaml", "`rows` is missing"),
    "no adapter": (GOOD + "  - label: x\n", "spec.yaml:7", "`adapter` is missing"),
    "seeds": (GOOD.replace("seeds: 1", "seeds: 0"), "spec.yaml:3", "`seeds` is `0`"),
    "method": (GOOD.replace("method: ia3", "method: ia4"), "spec.yaml:6", "unknown adapter method `ia4`"),
    "option": (GOOD.replace("method: ia3", "method: ia3, r: 4"), "spec.yaml:6", "unknown key `r`"),
    "training": (GOOD + "    train: {learning_rate: -1}\n", "spec.yaml:7:28", "learning_rate"),
    "other tokens": (GOOD + "    train: {max_length: 64}\n", "spec.yaml:6", "all rows read the same tokens"),
    "recipe": (GOOD.replace("recipe.yaml", "recipes.yaml"), "recipes.yaml", "no such recipe"),
    "two alike": (GOOD.replace("ia3", "lora"), "two rows are called `LoRA`", "`label`"),
    "score": (GOOD + "score: rougel\n", "`rougel` is no score", "rougeL"),
    "size": (GOOD + "match_parameters: many\n", "spec.yaml:7", "match_parameters"),
    "space": (GOOD + "search: {space: {train.learning_rate: {low: 2, high: 1}}}\n", "spec.yaml:7", "low below high"),
    "rate": (GOOD + "search: {space: {train.learning_rate: {times: [1, 400]}}}\n", "spec.yaml:7", "IA3", "at most 1"),
    "shared": (GOOD + "search: {space: {train.max_steps: [5, 6]}}\n", "spec.yaml:7", "it cannot be searched"),
    "times": (GOOD + "search: {space: {adapter.r: {times: [1, 2]}}}\n", "spec.yaml:7", "learning rate"),
    "objective": (GOOD + "search: {objective: rougeL}\n", "`rougeL` cannot decide a search", "rouge"),
    "same rows": (GOOD + "search: {}\noverrides: [eval.split=validation]\n", "validation"),
    "patience": (
        GOOD + "overrides: [train.eval_steps=1, train.early_stopping_patience=2, eval.split=test]\n",
        "validation",
    ),
    "validation": (GOOD + "search: {trials: 2}\n", "validation"),
    "outside": (GOOD + "outside: nowhere.jsonl\n", "spec.yaml:7", "no such file"),
    "override": (GOOD + "overrides: [train.max_step=3]\n", "unknown key `max_step`", "did you mean `max_steps`?"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_told_in_its_place(name, tmp_path, tiny_models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    comparisons.world(tmp_path, tiny_models("llama"))
    text, *said = WRONG[name]
    (tmp_path / "spec.yaml").write_text(text)
    code, out, err = inlay("compare", "spec.yaml")
    assert (code, out) == (2, "")
    for words in said:
        assert words in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recipe.yaml"], "--methods"),
        (["recipe.yaml", "--methods", "lora,loha2"], "did you mean `loha`?"),
        (["recipe.yaml", "other.yaml"], "`recipe.yaml` is no finished run"),
        (["nowhere.yaml"], "nowhere.yaml"),
        (["recipe.yaml", "--methods", "lora", "--seeds", "0"], "there is nothing to compare"),
        (["recipe.yaml", "--methods", ","], "there is nothing to compare"),
    ],
)
def test_a_wrong_request_says_what_can_be_asked(arguments, said, tmp_path, tiny_models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    comparisons.world(tmp_path, tiny_models("llama"))
    code, out, err = inlay("compare", *arguments)
    assert (code, out) == (2, "")
    assert said in err
