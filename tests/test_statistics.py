"""Intervals and verdicts, against scipy's and against what they promise: to cover the truth 95 times of 100."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import sacrebleu
import scipy.stats

from inlay.eval import MeasurementError, Record, statistics
from inlay.eval.metrics import find, gather
from inlay.eval.statistics import change, compare, interval, summarize

LABELS = ("yes", "no")


def metric(name: str):
    return find(name)("en")


def likelihoods(n: int, seed: int = 0, gain: float = 0.0) -> list[Record]:
    """Records whose likelihoods and lengths scatter; `gain` nats per token are taken off."""
    draw = random.Random(seed)
    records = []
    for number in range(n):
        tokens = draw.randint(2, 30)
        loss = tokens * (draw.gauss(3, 0.5) - gain)
        records.append(Record(f"r{number}", ("answer",), "answer", True, loss, tokens, 4 * tokens))
    return records


def choices(right: list[bool]) -> list[Record]:
    return [
        Record(f"r{number}", ("yes",), LABELS[not hit], True, 1.0, 1, 3, LABELS, (1.0, 2.0), (1, 1), 0, int(not hit))
        for number, hit in enumerate(right)
    ]


def texts(*pairs: tuple[str, str]) -> list[Record]:
    return [Record(f"r{number}", (wanted,), made, True, 1.0, 1, 1) for number, (made, wanted) in enumerate(pairs)]


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (20, 20), (1, 3), (37, 60), (599, 600)])
def test_shares_get_the_wilson_interval_of_scipy(hits, n):
    accuracy = metric("accuracy")
    [(value, ci95, note)] = interval(accuracy, gather(accuracy, choices([i < hits for i in range(n)])), seed=0)
    expected = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert value == pytest.approx(100 * hits / n)
    assert ci95 == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)
    assert note == "Wilson"


def test_bootstrap_interval_of_a_ratio_equals_scipy():
    perplexity, records = metric("perplexity"), likelihoods(80)
    gathered = gather(perplexity, records)
    [(value, ci95, note)] = interval(perplexity, gathered, seed=0, resamples=10_000)
    expected = scipy.stats.bootstrap(
        (gathered[:, 0], gathered[:, 1]),
        lambda nll, tokens, axis=-1: np.exp(nll.sum(axis=axis) / tokens.sum(axis=axis)),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=1,
    ).confidence_interval
    width = expected.high - expected.low
    assert ci95 == pytest.approx((expected.low, expected.high), abs=0.04 * width)  # two draws of 10,000 differ so far
    assert ci95[0] < value < ci95[1]
    assert note == "bootstrap"


def test_bootstrap_interval_of_bleu_equals_scipy():
    draw = random.Random(0)
    pairs = [tuple(" ".join(draw.choices("abcdef", k=draw.randint(4, 12))) for _ in range(2)) for _ in range(40)]
    bleu = metric("bleu")
    [(value, ci95, _)] = interval(bleu, gather(bleu, texts(*pairs)), seed=0, resamples=3000)

    def of_resample(chosen: np.ndarray) -> float:
        made, wanted = zip(*(pairs[int(index)] for index in chosen), strict=True)
        return sacrebleu.corpus_bleu(list(made), [list(wanted)], force=True).score

    assert value == pytest.approx(of_resample(np.arange(40)))
    expected = scipy.stats.bootstrap(
        (np.arange(40),), of_resample, vectorized=False, n_resamples=600, method="percentile", rng=1
    ).confidence_interval
    assert ci95 == pytest.approx((expected.low, expected.high), abs=0.15 * (expected.high - expected.low))


def test_paired_interval_equals_scipy_on_the_differences():
    """ROUGE is a mean over examples, so the change of the mean is the mean of the changes."""
    draw = random.Random(1)
    wanted = [" ".join(draw.choices("abcdefgh", k=10)) for _ in range(60)]
    made = [[" ".join(draw.choices("abcdefgh", k=10)) for _ in range(60)] for _ in range(2)]
    rouge = metric("rouge")
    new, old = (gather(rouge, texts(*zip(output, wanted, strict=True))) for output in made)
    for found, gained in zip(change(rouge, new, old, seed=0, resamples=10_000), 100 * (new - old).T, strict=True):
        expected = scipy.stats.bootstrap(
            (gained,), np.mean, n_resamples=10_000, method="percentile", rng=1
        ).confidence_interval
        assert found.value == pytest.approx(gained.mean())
        assert found.ci95 == pytest.approx((expected.low, expected.high), abs=0.04 * (expected.high - expected.low))
        assert found.unit == "points"


def test_intervals_cover_the_truth():
    """Of 300 benchmarks drawn from one population, about 95 % must hold its perplexity in their interval."""
    perplexity, generator = metric("perplexity"), np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        tokens = generator.integers(5, 15, size=60)
        nll = tokens * generator.normal(2.0, 0.6, size=60)
        [(_, (low, high), _)] = interval(perplexity, np.column_stack([nll, tokens]), seed=0, resamples=300)
        covered += low <= math.exp(2.0) <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_pairing_tells_what_separate_intervals_cannot():
    """A model that is a little better on every example: the two intervals overlap, the paired one excludes zero."""
    old, new = likelihoods(40), likelihoods(40, gain=0.02)
    before, after = (summarize([metric("perplexity")], records, seed=0)[0]["perplexity"] for records in (old, new))
    assert after.ci95[1] > before.ci95[0]
    found = compare([metric("perplexity")], new, old, seed=0)["perplexity"]
    assert found.verdict == "better"
    assert found.value == pytest.approx(100 * (math.exp(-0.02) - 1))
    assert found.unit == "%"


def test_resamples_are_the_same_for_the_same_seed_and_any_block(monkeypatch):
    perplexity = metric("perplexity")
    gathered = gather(perplexity, likelihoods(50))
    [(_, once, _)] = interval(perplexity, gathered, seed=7)
    assert interval(perplexity, gathered, seed=7)[0][1] == once
    assert interval(perplexity, gathered, seed=8)[0][1] != once
    monkeypatch.setattr(statistics, "_BLOCK", 333)
    assert interval(perplexity, gathered, seed=7)[0][1] == pytest.approx(once, rel=1e-12)


def test_no_spread_is_called_constant():
    scores, _ = summarize(
        [metric("bleu"), metric("rouge")], texts(("a b c d e", "a b c d e"), ("v w x y", "v w x y")), seed=0
    )
    for score in scores.values():
        assert score.value == pytest.approx(100)
        assert score.ci95 is None
        assert score.note == "constant"


def test_one_example_has_no_interval():
    scores, _ = summarize([metric("perplexity")], likelihoods(1), seed=0)
    assert scores["perplexity"].ci95 is None
    assert scores["perplexity"].note == "one example"
    right, wrong = choices([True]), choices([False])
    assert compare([metric("accuracy")], right, wrong, seed=0)["accuracy"].ci95 is None


@pytest.mark.parametrize(
    ("name", "gain", "verdict"),
    [("perplexity", 0.5, "better"), ("perplexity", -0.5, "worse"), ("bits_per_byte", 0.5, "better")],
)
def test_verdict_knows_the_direction(name, gain, verdict):
    found = compare([metric(name)], likelihoods(30, gain=gain), likelihoods(30), seed=0)[name]
    assert found.verdict == verdict
    assert (found.value < 0) == (gain > 0)


def test_verdict_is_earned_by_the_interval():
    def accuracy(new: list[bool], old: list[bool]):
        return compare([metric("accuracy")], choices(new), choices(old), seed=0)["accuracy"]

    mixed = accuracy([True, False] * 20, [False, True] * 20)
    assert mixed.verdict == "unclear"
    assert mixed.ci95[0] < 0 < mixed.ci95[1]
    gained = accuracy([True] * 30 + [False] * 10, [True] * 10 + [False] * 30)
    assert (gained.verdict, gained.value, gained.unit) == ("better", 50.0, "pp")
    assert accuracy([True] * 10 + [False] * 30, [True] * 30 + [False] * 10).verdict == "worse"
    untouched = accuracy([True, False] * 5, [True, False] * 5)
    assert (untouched.verdict, untouched.value, untouched.ci95) == ("same", 0.0, None)


def test_each_score_of_a_metric_has_its_own_verdict():
    """The same words in another order: ROUGE-1 cannot see it, ROUGE-2 can."""
    wanted = [f"{a} b c d" for a in "efghijkl"]
    old = texts(*((words, words) for words in wanted))
    new = texts(*((" ".join(reversed(words.split())), words) for words in wanted))
    found = compare([metric("rouge")], new, old)
    assert (found["rouge1"].verdict, found["rouge1"].ci95) == ("same", None)
    assert (found["rouge2"].verdict, found["rouge2"].value) == ("worse", -100.0)


def test_few_examples_earn_no_verdict():
    """Five that all improve could be luck (sign test: p = 0.06); six are fewer than one in twenty times luck."""
    for n, verdict in ((5, "unclear"), (6, "better")):
        found = compare([metric("accuracy")], choices([True] * n), choices([False] * n), seed=0)["accuracy"]
        assert (found.value, found.verdict) == (100.0, verdict)
        assert (scipy.stats.binomtest(n, n).pvalue < 0.05) == (verdict == "better")


def test_summary_carries_what_a_reader_needs():
    records = [
        replace(record, references=("the cat sat", "a cat") if number else ("the cat sat",))
        for number, record in enumerate(texts(("the cat sat", ""), ("a dog sat", ""), ("the", "")))
    ]
    scores, examples = summarize([metric("bleu"), metric("rouge"), metric("empty")], records, seed=0)
    assert list(scores) == ["bleu", "rouge1", "rouge2", "rougeL", "rougeLsum", "empty"]
    assert scores["bleu"].signature.startswith("nrefs:var|")
    assert scores["rouge1"].unit == "points"
    assert scores["rouge1"].higher_is_better is True
    assert scores["empty"].higher_is_better is False
    assert {score.n for score in scores.values()} == {3}
    expected = [sacrebleu.sentence_bleu(record.prediction, list(record.references)).score for record in records]
    assert examples["bleu"] == pytest.approx(expected)
    assert examples["rouge1"] == pytest.approx([100, 100 * 2 / 5, 100 * 2 / 4])


def test_macro_f1_has_no_value_per_example():
    scores, examples = summarize([metric("accuracy"), metric("f1")], choices([True, False, True]), seed=0)
    assert set(scores) == {"accuracy", "f1"}
    assert examples == {"accuracy": [100.0, 0.0, 100.0]}


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_s15_a_likelihood_that_is_not_finite_is_an_error(broken):
    records = likelihoods(32)
    records[3] = replace(records[3], nll_nats=broken)
    with pytest.raises(MeasurementError, match=r"not finite in 1 of 32 examples \(`r3`\)"):
        summarize([metric("perplexity")], records, seed=0)
    chosen = choices([True] * 4)
    chosen[2] = replace(chosen[2], label_nll_nats=(1.0, broken))
    with pytest.raises(MeasurementError, match=r"not finite in 1 of 4 examples \(`r2`\)"):
        summarize([metric("accuracy")], chosen, seed=0)


def test_s15_a_score_that_overflows_is_an_error():
    with pytest.raises(MeasurementError, match="a finite number was expected"):
        summarize([metric("perplexity")], [replace(record, nll_nats=1e6) for record in likelihoods(3)], seed=0)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"tokens": 99}, "`r1` was scored over different tokens"),
        ({"id": "other"}, "example 2 is `other` for one model and `r1` for the other"),
        ({"references": ("another answer",)}, "`r1` was scored over different references"),
    ],
)
def test_s13_only_like_is_compared_with_like(edit, message):
    old = likelihoods(5)
    new = [replace(record, **edit) if record.id == "r1" else record for record in old]
    with pytest.raises(MeasurementError, match=message):
        compare([metric("perplexity")], new, old, seed=0)
    with pytest.raises(MeasurementError, match="4 examples of one model"):
        compare([metric("perplexity")], old[:4], old, seed=0)
