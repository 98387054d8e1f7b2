"""Scores over seeds and examples: against scipy, sacrebleu, a published table and the truth of a simulation."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy.stats
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from inlay.eval import MeasurementError, Record
from inlay.eval.metrics import Additive, find, gather, names
from inlay.eval.seeds import difference, difference_on_examples, estimate, linearize
from inlay.eval.spread import Variances, measure
from inlay.eval.statistics import interval

MEAN = find("token_f1")("en")  # 100 times a mean over examples
SHARE = find("accuracy")("en")
PERPLEXITY = find("perplexity")("en")

# Shrout and Fleiss 1979, "Intraclass Correlations", table 2: six targets rated by four judges.
RATINGS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]).T


def runs(scores: np.ndarray) -> dict[int, np.ndarray]:
    """Runs of a mean metric with these scores, shape (S, n), told in hundredths."""
    return {seed: row[:, None] / 100 for seed, row in enumerate(np.asarray(scores, dtype=float))}


def losses(seeds: int, n: int, seed: int = 0, gain: float = 0.0) -> dict[int, np.ndarray]:
    """Runs of perplexity: the same lengths at every seed, losses that scatter."""
    generator = np.random.default_rng(seed)
    tokens = np.random.default_rng(99).integers(2, 30, size=n)
    nll = tokens * (generator.normal(3 - gain, 0.5, size=(seeds, n)) + generator.normal(0, 0.1, size=(seeds, 1)))
    return {number: np.column_stack([row, tokens]) for number, row in enumerate(nll)}


def drawn(generator, methods: int, seeds: int, n: int, seed_sd: float) -> list[dict[int, np.ndarray]]:
    """Runs of equal methods around 50: examples and residuals have a standard deviation of 10 each."""
    shape = (methods, seeds, n)
    scores = 50 + 10 * generator.normal(size=(methods, 1, n)) + 10 * generator.normal(size=shape)
    return [runs(rows) for rows in scores + seed_sd * generator.normal(size=(methods, seeds, 1))]


def test_mean_squares_and_components_are_those_of_shrout_and_fleiss():
    spread, variances = measure(RATINGS.astype(float))
    found = [24 * square for square in (spread.of_seeds, spread.of_examples, spread.residual)]
    assert found == pytest.approx([32.49, 11.24, 1.02], abs=0.005)
    assert (spread.seed_df, spread.example_df, spread.residual_df) == (3, 5, 15)
    assert variances.seed == pytest.approx((32.486 - 1.019) / 6, abs=0.001)
    assert variances.example == pytest.approx((11.242 - 1.019) / 4, abs=0.001)
    assert variances.residual == pytest.approx(1.019, abs=0.001)
    assert spread.variance == pytest.approx((32.486 + 11.242 - 1.019) / 24, abs=0.001)
    again = variances.spread(seeds=4, examples=6)
    assert (again.of_seeds, again.of_examples) == pytest.approx((spread.of_seeds, spread.of_examples))


def test_a_mean_taken_apart_is_its_examples():
    row = linearize(MEAN, runs(RATINGS))
    assert row.scores == pytest.approx(RATINGS)
    assert row.values == pytest.approx(RATINGS.mean(axis=1))


@pytest.mark.parametrize(("name", "score"), [("perplexity", "perplexity"), ("bleu", "bleu"), ("chrf", "chrf")])
def test_a_corpus_score_taken_apart_has_the_error_that_the_bootstrap_finds(name, score):
    metric = find(name)("en")
    gathered = losses(1, 150)[0] if name == "perplexity" else gather(metric, texts(sentences(150), noisy(150, 0.3)))
    found = estimate(metric, {0: gathered}, score)
    value, ci95, _ = interval(metric, gathered, seed=0)[metric.scores.index(score)]
    assert found.value == pytest.approx(value)
    assert found.ci95[1] - found.ci95[0] == pytest.approx(ci95[1] - ci95[0], rel=0.1)


def test_seeds_without_noise_of_examples_give_the_paired_t_test_over_seeds():
    a, b = np.array([51.0, 52.5, 50.5, 53.0]), np.array([50.0, 50.5, 50.0, 51.0])
    found = difference(MEAN, runs(np.repeat(a[:, None], 20, axis=1)), runs(np.repeat(b[:, None], 20, axis=1)))
    expected = scipy.stats.ttest_rel(a, b)
    assert found.value == pytest.approx((a - b).mean())
    assert found.p == pytest.approx(expected.pvalue)
    assert found.ci95 == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.df, found.claim) == (pytest.approx(3), "seeds")


def test_other_seeds_without_noise_of_examples_give_welchs_t_test():
    a, b = np.array([51.0, 52.5, 50.5, 53.0]), np.array([50.0, 50.5, 47.0, 51.0, 50.0, 49.5])
    one, other = runs(np.repeat(a[:, None], 20, axis=1)), runs(np.repeat(b[:, None], 20, axis=1))
    found = difference(MEAN, one, {seed + 100: rows for seed, rows in other.items()})
    expected = scipy.stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.df == pytest.approx(expected.df)
    assert found.note == "unpaired seeds (4 and 6), 20 examples"


@pytest.mark.parametrize("claim", [difference, difference_on_examples])
def test_one_seed_gives_the_paired_t_test_over_examples(claim):
    generator = np.random.default_rng(0)
    a, b = generator.normal(50, 10, size=(2, 1, 40)) + generator.normal(0, 20, size=(1, 40))
    found = claim(MEAN, runs(a), runs(b))
    expected = scipy.stats.ttest_rel(a[0], b[0])
    assert found.p == pytest.approx(expected.pvalue)
    assert found.ci95 == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.df, found.claim, found.variances.seed) == (39, "examples", None)


def test_a_claim_about_these_models_pairs_the_means_of_their_seeds():
    generator = np.random.default_rng(1)
    a, b = generator.normal(50, 10, size=(2, 3, 40))
    found = difference_on_examples(MEAN, runs(a), runs(b))
    expected = scipy.stats.ttest_rel(a.mean(axis=0), b.mean(axis=0))
    assert (found.p, found.claim) == (pytest.approx(expected.pvalue), "examples")
    assert found.note == "these 3 seeds, 40 examples"


def test_what_was_not_trained_is_compared_at_every_seed():
    """The untouched base scores the same at every seed: its interval is that of one, its seeds add nothing."""
    scores = np.random.default_rng(0).normal(50, 10, size=(1, 60))
    once, thrice = estimate(MEAN, runs(scores)), estimate(MEAN, runs(np.repeat(scores, 3, axis=0)))
    assert thrice.ci95 == pytest.approx(once.ci95)
    assert (once.claim, thrice.claim, thrice.variances.seed) == ("examples", "seeds", 0)


def sentences(n: int) -> list[str]:
    draw, words = (
        random.Random(0),
        ("the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "hill", "and", "then"),
    )
    return [" ".join(draw.choices(words, k=12)) for _ in range(n)]


def noisy(n: int, rate: float, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(w if draw.random() > rate else "x" for w in text.split()) for text in sentences(n)]


def texts(wanted: list[str], made: list[str]) -> list[Record]:
    pairs = zip(wanted, made, strict=True)
    return [Record(f"r{number}", (text,), output, True, 1.0, 1, 1) for number, (text, output) in enumerate(pairs)]


@pytest.mark.parametrize(("rate", "apart"), [(0.35, True), (0.31, False)])
def test_bleu_agrees_with_the_paired_tests_of_sacrebleu(rate, apart, monkeypatch):
    """Scores alike; interval lengths within a tenth; p-values within 0.05 of approximate randomization, which is
    two-sided, and on the same side of 0.05 as the paired bootstrap's, which counts one side."""
    monkeypatch.setenv("SACREBLEU_SEED", "1")
    wanted, outputs = sentences(150), [noisy(150, 0.3), noisy(150, rate, seed=2)]

    def paired(kind: str):
        return PairedTest([("b", outputs[0]), ("a", outputs[1])], {"BLEU": BLEU()}, [wanted], kind)()[1]["BLEU"]

    bootstrap, randomized = paired("bs"), paired("ar")
    bleu = find("bleu")("en")
    b, a = ({0: gather(bleu, texts(wanted, output))} for output in outputs)
    found = difference(bleu, a, b)
    assert found.value == pytest.approx(bootstrap[1].score - bootstrap[0].score)
    assert found.p == pytest.approx(randomized[1].p_value, abs=0.05)
    assert (found.p < 0.05) == (bootstrap[1].p_value < 0.05) == apart
    for one, result in zip((b, a), bootstrap, strict=True):
        low, high = estimate(bleu, one).ci95
        assert (high - low) / 2 == pytest.approx(result.ci, rel=0.1)


def answered(n: int, rate: float, seed: int) -> list[Record]:
    """Records that hold what any metric needs: a text, its likelihood and a choice."""
    draw, records = random.Random(seed), []
    for number, (wanted, made) in enumerate(zip(sentences(n), noisy(n, rate, seed), strict=True)):
        tokens, labels, gold = len(wanted.split()), ("yes", "no"), number % 2
        chosen = gold if draw.random() > rate else 1 - gold
        made = "" if draw.random() < 0.1 else made if draw.random() < rate else wanted
        nll, losses_, done = tokens * draw.gauss(2 + rate, 0.3), (1.0, 2.0), draw.random() > rate
        records.append(
            Record(f"r{number}", (wanted,), made, done, nll, tokens, len(wanted), labels, losses_, (1, 1), gold, chosen)
        )
    return records


@pytest.mark.parametrize("name", [name for name in names() if issubclass(find(name), Additive)])
def test_every_metric_of_sums_is_compared(name):
    """A worse model is told from a better one, and the way of the difference is that of the scores."""
    metric = find(name)("en")
    better, worse = (
        {seed: gather(metric, answered(80, rate, seed + offset)) for seed in range(3)}
        for rate, offset in ((0.1, 0), (0.6, 10))
    )
    for score in metric.scores:
        found = difference(metric, better, worse, score)
        gained = estimate(metric, better, score).value - estimate(metric, worse, score).value
        assert (found.value > 0) == (gained > 0)
        assert found.ci95[0] < found.value < found.ci95[1]
        if name != "empty":  # both leave as many out
            assert (found.value > 0) == metric.higher_is_better
            assert found.p < 0.05


def test_perplexity_is_compared_by_its_ratio():
    """Twice the loss in nats on every example is not twice as bad; a ratio that all share is."""
    a, b = losses(3, 50), losses(3, 50)
    for row in a.values():
        row[:, 0] += 0.02 * row[:, 1]
    found = difference(PERPLEXITY, a, b)
    assert (found.value, found.unit, found.scaled) == (pytest.approx(100 * math.expm1(0.02)), "%", pytest.approx(2))
    mean = estimate(PERPLEXITY, a)
    assert mean.value == pytest.approx(scipy.stats.gmean(mean.seed_values))
    assert mean.ci95[0] * mean.ci95[1] == pytest.approx(mean.value**2)


def test_differences_are_the_same_either_way_round():
    a, b = losses(3, 50, seed=1), losses(3, 50, seed=2)
    one, other = difference(PERPLEXITY, a, b), difference(PERPLEXITY, b, a)
    assert one.p == pytest.approx(other.p)
    assert 1 + one.value / 100 == pytest.approx(1 / (1 + other.value / 100))
    assert 1 + one.ci95[0] / 100 == pytest.approx(1 / (1 + other.ci95[1] / 100))


def test_the_same_rows_are_the_same():
    found = difference(PERPLEXITY, losses(3, 50), losses(3, 50))
    assert (found.value, found.p, found.ci95, found.note) == (0.0, 1.0, None, "the same")


def test_scores_that_cannot_see_a_change_are_the_same():
    """Other statistics on every example, but the score of each is what it was."""
    halves = {seed: np.column_stack([np.full(20, 2.0), np.full(20, 1.0)]) for seed in range(3)}
    found = difference(PERPLEXITY, halves, {seed: 2 * rows for seed, rows in halves.items()})
    assert (found.value, found.p, found.note) == (0.0, 1.0, "the same")


def test_a_change_that_all_examples_share_tells_as_much_as_a_sign_test():
    scores = np.random.default_rng(0).normal(50, 10, size=(3, 8)).round()
    found = difference(MEAN, runs(scores + 4), runs(scores))
    assert found.value == pytest.approx(4)
    assert found.ci95 == (found.value, found.value)
    assert found.p == pytest.approx(scipy.stats.binomtest(8, 8).pvalue)


@pytest.mark.parametrize(("n", "changed", "claimed"), [(5, 5, False), (6, 6, True), (200, 5, False), (200, 30, True)])
def test_few_examples_that_differ_earn_no_claim(n, changed, claimed):
    better = np.zeros((1, n))
    better[0, :changed] = 100
    better[0, 0] = 90 if claimed else 100  # not all alike
    found = difference(MEAN, runs(better), runs(np.zeros((1, n))))
    assert found.value == pytest.approx(better.mean())
    assert (found.p < 0.05, found.ci95 is not None) == (claimed, claimed)
    assert found.note.startswith("no claim: fewer than 6 examples") == (not claimed)


def test_one_example_has_no_interval():
    found = estimate(PERPLEXITY, losses(3, 1))
    assert (found.ci95, found.note) == (None, "one example")
    assert found.value == pytest.approx(scipy.stats.gmean(found.seed_values))


def test_scores_that_never_vary_have_no_interval_but_shares_do():
    assert estimate(MEAN, runs(np.full((3, 30), 40.0))).note == "constant"
    found = estimate(SHARE, runs(np.full((3, 30), 100.0)))
    wilson = scipy.stats.binomtest(30, 30).proportion_ci(method="wilson")
    assert found.value == 100
    assert found.ci95[1] == pytest.approx(100)
    assert 100 * wilson.low - 1 < found.ci95[0] < 100 * wilson.low  # wider by Student's t


def test_the_interval_of_a_share_stays_within_its_range():
    hits = np.random.default_rng(0).random((3, 60)) < 0.97
    low, high = estimate(SHARE, runs(100 * hits)).ci95
    assert 80 < low < 100 * hits.mean() < high <= 100


def test_only_common_seeds_are_paired():
    a, b = losses(4, 40, seed=1), losses(4, 40, seed=2)
    common = {seed: b[seed] for seed in (1, 2, 3)}
    found = difference(PERPLEXITY, a, common | {7: b[0]})
    assert found == difference(PERPLEXITY, {seed: a[seed] for seed in (1, 2, 3)}, common)
    assert found.note == "3 seeds, 40 examples"
    alone = difference(PERPLEXITY, a, {2: b[2]})
    assert alone == difference(PERPLEXITY, {2: a[2]}, {2: b[2]})
    assert alone.claim == "examples"


def test_pairing_by_seed_removes_what_the_seeds_share():
    generator = np.random.default_rng(0)
    shared, scores = np.array([[-6.0], [-3.0], [0.0], [3.0], [6.0]]), generator.normal(50, 3, size=(2, 5, 100))
    a, b = runs(scores[0] + shared + 1), runs(scores[1] + shared)
    paired = difference(MEAN, a, b)
    unpaired = difference(MEAN, a, {seed + 10: rows for seed, rows in b.items()})
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.ci95[1] - paired.ci95[0] < 0.2 * (unpaired.ci95[1] - unpaired.ci95[0])
    assert unpaired.variances.seed == pytest.approx(2 * shared.var(ddof=1), rel=0.2)
    assert paired.variances.seed < 0.5


@pytest.mark.parametrize(("seeds", "seed_sd", "naive"), [(3, 0.5, 0.99), (3, 4.0, 0.60), (2, 4.0, 0.60)])
@pytest.mark.parametrize("paired", [True, False])
def test_intervals_cover_the_truth_over_seeds(seeds, seed_sd, naive, paired):
    """Of 300 comparisons of equal methods 95 % of the intervals or more hold zero, also with two seeds that matter
    most; of those over examples alone fewer do the more seeds matter."""
    generator, covered, over_examples = np.random.default_rng(0), 0, 0
    for _ in range(300):
        a, b = drawn(generator, 2, seeds, 200, seed_sd)
        if not paired:
            b = {seed + 10: rows for seed, rows in b.items()}
        low, high = difference(MEAN, a, b).ci95
        covered += low <= 0 <= high
        low, high = difference_on_examples(MEAN, a, b).ci95
        over_examples += low <= 0 <= high
    assert covered / 300 > 0.92
    assert over_examples / 300 < naive


def test_intervals_of_one_method_cover_its_mean():
    generator, covered = np.random.default_rng(1), 0
    for _ in range(300):
        low, high = estimate(MEAN, drawn(generator, 1, 5, 100, 1.0)[0]).ci95
        covered += low <= 50 <= high
    assert 0.92 < covered / 300 < 0.985


def test_components_are_found():
    """Means over 200 simulations; the seed component's would be biased upwards if its floor at zero mattered here."""
    generator = np.random.default_rng(2)
    found = [measure(linearize(MEAN, drawn(generator, 1, 5, 100, 4.0)[0]).scores)[1] for _ in range(200)]
    assert np.mean([each.seed for each in found]) == pytest.approx(16, rel=0.15)
    assert np.mean([each.example for each in found]) == pytest.approx(100, rel=0.05)
    assert np.mean([each.residual for each in found]) == pytest.approx(100, rel=0.05)
    assert Variances(16, 100, 100).spread(5, 100).variance == pytest.approx(16 / 5 + 1 + 0.2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "runs of one shape"),
        ({0: np.ones((5, 2)), 1: np.ones((6, 2))}, r"seed 1: \(6, 2\)"),
        ({0: np.ones((0, 2))}, "no examples"),
        ({0: np.array([[1e6, 1.0], [1.0, 1.0]])}, "not a finite number above zero"),
        ({0: np.array([[np.nan, 1.0], [1.0, 1.0]])}, "not a finite number above zero"),
    ],
)
def test_runs_that_cannot_be_scored_are_refused(given, message):
    with pytest.raises(MeasurementError, match=message):
        estimate(PERPLEXITY, given)


def test_only_like_is_compared_with_like():
    with pytest.raises(MeasurementError, match="40 examples of one method cannot be paired with 41 of another"):
        difference(PERPLEXITY, losses(3, 40), losses(3, 41))
    with pytest.raises(ValueError, match="ROUGE has rouge1, rouge2, rougeL, rougeLsum: name one of them, not rouge3"):
        estimate(find("rouge")("en"), {0: np.ones((3, 4))}, "rouge3")
