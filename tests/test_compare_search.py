"""The search of a comparison: equal trials, on the validation rows alone, the same after an interruption."""

from __future__ import annotations

import json

import comparisons
import pytest
from comparisons import found, home, row, rows_of, spec
from tiny_runs import inlay

from inlay.tuner.comparison import compare as engine
from inlay.tuner.comparison.records import TrialRecord
from inlay.tuner.comparison.search import RowSearch
from inlay.tuner.comparison.spec import Between, Search, Times
from inlay.tuner.problems import Interrupted

SEARCH = {"trials": 3, "space": {"train.learning_rate": {"times": [0.1, 1, 10]}}}


@pytest.fixture
def folder(tmp_path, tiny_models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    comparisons.world(tmp_path, tiny_models("llama"))
    rows = (tmp_path / "summarization.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "validation.jsonl").write_text("".join(rows[20:]))
    (tmp_path / "summarization.jsonl").write_text("".join(rows[:20]))
    return tmp_path


def searched(folder, *rows, **more):
    overrides = ["task.data.validation=validation.jsonl", "train.max_steps=4"]
    return spec(folder, *rows, overrides=overrides, search=SEARCH, **more)


def losses(path) -> list[float]:
    """Validation losses that a trial logged."""
    logged = [json.loads(line) for line in (path / "train.jsonl").read_text().splitlines()]
    return [line["validation"]["loss"] for line in logged if line["validation"]]


def test_each_method_gets_the_same_trials_and_the_best_on_validation_is_used(folder):
    searched(folder, row("lora"), row("ia3"))
    code, _, err = inlay("compare", "spec.yaml")
    assert code == 0, err
    rows = rows_of(found(folder))
    for label, own in (("LoRA", 2e-4), ("IA3", 3e-3)):
        trials = rows[label]["trials"]
        assert sorted(trial["values"]["train.learning_rate"] for trial in trials) == pytest.approx(
            [0.1 * own, own, 10 * own]
        )
        assert [trial["objective"] for trial in trials] == [
            losses(home(folder) / trial["folder"])[-1] for trial in trials
        ]
        ended = [trial for trial in trials if not trial["stopped"]]
        best = min(ended, key=lambda trial: trial["objective"])["values"]
        assert rows[label]["chosen"] == best
        for path in rows[label]["cells"]:
            cell = json.loads((home(folder) / path / "run.json").read_text())
            assert cell["train"]["learning_rate"] == best["train.learning_rate"]
        edges = best["train.learning_rate"] != pytest.approx(own)
        assert bool(rows[label]["at_edge"]) == edges
    assert "the test rows were scored once, after that" in found(folder)["tuning"]


def test_trials_never_see_the_test_rows(folder):
    searched(folder, row("lora"), seeds=1)
    assert inlay("compare", "spec.yaml")[0] == 0
    before = rows_of(found(folder))["LoRA"]["trials"]
    test = [json.loads(line) for line in (folder / "summarization-test.jsonl").read_text().splitlines()]
    for one in test:
        one["summary"] = "quite another summary"
    (folder / "summarization-test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in test))
    assert inlay("compare", "spec.yaml", "--again", "--output", "other")[0] == 0
    other = json.loads((folder / "other" / "comparison.json").read_text())
    assert rows_of(other)["LoRA"]["trials"] == before
    assert not list((folder / "other" / "trials").glob("*/predictions.jsonl"))


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(folder, monkeypatch):
    searched(folder, row("lora"), row("ia3"), seeds=1)
    assert inlay("compare", "spec.yaml", "--output", "whole")[0] == 0
    attempts = []
    try_values = engine.try_values

    def stop_in_the_middle(*arguments):
        attempts.append(1)
        if len(attempts) in (2, 4):
            raise Interrupted("stopped by SIGINT")
        return try_values(*arguments)

    monkeypatch.setattr(engine, "try_values", stop_in_the_middle)
    codes = [inlay("compare", "spec.yaml", "--output", "parts")[0] for _ in range(3)]
    assert codes == [130, 130, 0]
    whole, parts = (json.loads((folder / name / "comparison.json").read_text()) for name in ("whole", "parts"))
    for one, other in zip(whole["rows"], parts["rows"], strict=True):
        assert one["trials"] == other["trials"]
        assert one["scores"] == other["scores"]


def trial(values, objective, *, stopped=False):
    return TrialRecord(folder="", values=values, objective=objective, step=4, stopped=stopped, reason="")


def test_a_trial_behind_the_median_is_poor_and_never_chosen():
    search = RowSearch(Search(trials=4, space={"train.learning_rate": Times(times=[1, 2, 3, 4])}), "row", 1.0, False)
    for objective, course in ((1.0, {1: 2.0, 2: 1.0}), (2.0, {1: 3.0, 2: 2.0})):
        search.add(trial(search.propose(), objective), course)
    values = search.propose()
    assert not search.is_poor(2.4, 1)
    assert search.is_poor(2.6, 2)
    search.add(trial(values, 0.5, stopped=True), {1: 0.5})
    assert search.best().objective == 1.0


def test_proposals_never_repeat_in_a_finite_space_and_stop_when_it_is_used_up():
    space = {"adapter.r": [2, 4], "train.learning_rate": [0.1, 0.2]}
    search = RowSearch(Search(trials=9, space=space), "row", 1.0, False)
    assert search.wanted == 4
    tried = []
    for _ in range(search.wanted):
        tried.append(search.propose())
        search.add(trial(tried[-1], 1.0), {1: 1.0})
    assert len({tuple(sorted(values.items())) for values in tried}) == 4


def test_the_edge_of_a_range_is_told_in_its_own_scale():
    search = RowSearch(Search(space={"train.learning_rate": Between(low=1e-4, high=1e-2)}), "row", 1.0, False)
    assert search.at_edge(trial({"train.learning_rate": 9.9e-3}, 1.0)) == ["train.learning_rate"]
    assert search.at_edge(trial({"train.learning_rate": 1e-3}, 1.0)) == []


def test_a_search_over_an_option_that_a_row_does_not_have_is_refused_before_it_trains(folder):
    spec(
        folder,
        row("lora"),
        row("ia3"),
        overrides=["task.data.validation=validation.jsonl"],
        search={"trials": 2, "space": {"adapter.r": [2, 4]}},
    )
    code, _, err = inlay("compare", "spec.yaml")
    assert code == 2
    assert "unknown key `r`" in err
    assert "IA3" in err
    assert not (folder / "runs").exists()
