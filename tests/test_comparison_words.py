"""The finding of a comparison in words says what the tests say, and no more."""

from __future__ import annotations

import re

import numpy as np
import pytest

from inlay.eval.groups import compare_all
from inlay.eval.metrics import find
from inlay.tuner.comparison.analysis import Analysis
from inlay.tuner.comparison.records import EstimateRecord, RowRecord, ScoreInfo
from inlay.tuner.comparison.words import detectable_by, heading, sentences

METRIC = find("accuracy")("en")
ROWS = 400


def row(label, groups, **more):
    found = groups.estimates.get(label)
    score = EstimateRecord(value=found.value, ci95=found.ci95, seeds=[], group="", note="") if found else None
    fields = {
        "label": label, "kind": "method", "method": "lora", "title": label, "options": {}, "learning_rate": None,
        "status": "done", "reason": "", "differs": [], "seeds": [0, 1, 2], "cells": [], "steps": 1, "rows_seen": 1,
        "tokens_seen": 1, "scores": {"accuracy": score} if score else {}, "cost": None, "forgetting": None,
        "trials": [], "chosen": {}, "at_edge": [],
    }  # fmt: skip
    return RowRecord(**{**fields, **more})


def analysis(shares, *, seeds=3, noise=0.0, more=()):
    """Methods that are right on these shares of the rows, seed by seed the same but for some noise."""
    draw = np.random.default_rng(0)
    easy = draw.random(ROWS)
    runs = {
        label: {
            seed: (easy + noise * draw.standard_normal(ROWS) < share).astype(float)[:, None] for seed in range(seeds)
        }
        for label, share in shares.items()
    }
    groups = compare_all(METRIC, runs)
    info = {"accuracy": ScoreInfo(unit="%", higher_is_better=True, ratio=False, signature="")}
    return Analysis([*(row(label, groups) for label in shares), *more(groups)] if more else
                    [row(label, groups) for label in shares], [], groups, info)  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"A": 0.8}, r"A reaches 7\d\.?\d* accuracy"),
        ({"A": 0.5, "B": 0.5}, "The two methods cannot be told apart on accuracy"),
        ({"A": 0.8, "B": 0.3}, "A is ahead of B on accuracy"),
        ({"A": 0.3, "B": 0.8, "C": 0.3}, "B is ahead of the other two on accuracy"),
        ({"A": 0.8, "B": 0.8, "C": 0.3}, "[AB] and [AB] cannot be told apart on accuracy; they are ahead of C"),
        (dict.fromkeys("ABCDEF", 0.5), "The six methods cannot be told apart on accuracy"),
    ],
)
def test_the_heading_names_who_ties_and_who_is_ahead(shares, said):
    assert re.fullmatch(said, heading(analysis(shares, noise=0.2), "accuracy", "fallback"))


def test_methods_that_tie_with_the_best_but_not_with_each_other_are_not_said_to_tie():
    found = analysis({"A": 0.64, "B": 0.60, "C": 0.56}, noise=0.0)
    groups = found.groups
    apart = {pair: groups.apart(*pair) for pair in groups.differences}
    said = heading(found, "accuracy", "")
    for (one, other), split in apart.items():
        if split:
            assert not re.search(rf"{one}.*{other} cannot be told apart", said.partition(";")[0])


def test_a_gap_that_is_a_tie_names_more_rows_or_seeds_than_there_are():
    found = analysis({"A": 0.52, "B": 0.5}, noise=0.4)
    assert not found.groups.apart(*found.groups.order[:2])
    said = sentences(found, METRIC, "accuracy", "tuned")
    (split,) = [sentence for sentence in said if sentence.startswith(("To split", "Neither"))]
    rows = re.search(r"about ([\d,]+) rows", split)
    seeds = re.search(r"about ([\d,]+) seeds", split)
    assert rows or seeds or split.startswith("Neither")
    assert not rows or int(rows[1].replace(",", "")) > ROWS
    assert not seeds or int(seeds[1].replace(",", "")) > 3


def test_one_seed_is_said_to_be_about_other_rows_alone():
    said = " ".join(sentences(analysis({"A": 0.8, "B": 0.3}, seeds=1), METRIC, "accuracy", "tuned"))
    assert "Another seed might order the methods otherwise" in said
    assert "other seeds and other rows" not in said


def test_lost_rows_and_edges_are_told():
    def lost(groups):
        return [
            row("X", groups, status="failed", reason="seed 1: out of memory"),
            row("Y", groups, status="incomparable", reason="saw 4 training rows, A 8"),
            row("Z", groups, at_edge=["train.learning_rate"], chosen={"train.learning_rate": 0.01}),
        ]

    said = sentences(analysis({"A": 0.8, "B": 0.3}, more=lost), METRIC, "accuracy", "tuned")
    assert "X: failed, seed 1: out of memory." in said
    assert "Y: not comparable, it saw 4 training rows, A 8." in said
    assert "The best learning rate is at the edge of what was searched for Z (0.0100)." in said
    assert said[-1] == "tuned"


def test_what_could_be_found_is_larger_with_fewer_seeds_and_unknown_without_a_spread():
    few, many = analysis({"A": 0.5, "B": 0.6}, noise=0.3), analysis({"A": 0.5, "B": 0.6}, noise=0.3, seeds=10)
    assert detectable_by(few.groups, METRIC, 3, ROWS) > detectable_by(many.groups, METRIC, 10, ROWS) > 0
    same = analysis({"A": 0.5, "B": 0.5})
    assert detectable_by(same.groups, METRIC, 3, ROWS) is None
