"""Families of comparisons: Holm, letters, shared seed variances, and what can be found; against published examples."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from inlay.eval import MeasurementError
from inlay.eval.groups import LEVEL, compare_all, holm, letters, moderate
from inlay.eval.metrics import find
from inlay.eval.power import detectable, needed
from inlay.eval.seeds import difference, estimate, tell
from inlay.eval.spread import Spread, Variances

MEAN = find("token_f1")("en")
PERPLEXITY = find("perplexity")("en")


def family(
    generator, means: list[float], seeds: int = 3, n: int = 200, seed_sd: float = 1.0
) -> dict[str, dict[int, np.ndarray]]:
    """Runs of methods called `m0`, `m1`, ...: examples are as hard for all, residuals have a deviation of 10."""
    hard, shape = 10 * generator.normal(size=n), (len(means), seeds, n)
    shifts = np.array(means)[:, None, None] + seed_sd * generator.normal(size=(len(means), seeds, 1))
    scores = (hard + shifts + 10 * generator.normal(size=shape)) / 100
    return {f"m{number}": dict(enumerate(rows[..., None])) for number, rows in enumerate(scores)}


def test_holm_equals_statsmodels():
    """statsmodels 0.15.0, multipletests(..., method="holm"); two values tie, one is capped by order."""
    found = holm([0.021, 0.0004, 0.31, 0.0131, 0.0131, 0.9, 0.0049])
    assert found == pytest.approx([0.0655, 0.0028, 0.62, 0.0655, 0.0655, 0.9, 0.0294])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("apart", "expected"),
    [
        (set(), ["a", "a", "a"]),
        ({("x", "z")}, ["a", "ab", "b"]),  # a chain: neighbours cannot be told apart, the ends can
        ({("y", "z")}, ["ab", "a", "b"]),  # the best ties with both of two that do not tie
        ({("z", "x"), ("y", "x")}, ["a", "b", "b"]),
        ({("x", "y"), ("x", "z"), ("y", "z")}, ["a", "b", "c"]),
    ],
)
def test_letters_of_worked_examples(apart, expected):
    assert letters(["x", "y", "z"], apart) == expected


def test_letters_are_shared_by_those_that_tie_and_by_nobody_else():
    draw = random.Random(0)
    for _ in range(60):
        names = [f"n{i}" for i in range(draw.randint(1, 9))]
        apart = {pair for pair in combinations(names, 2) if draw.random() < 0.4}
        found = dict(zip(names, map(set, letters(names, apart)), strict=True))
        for one, other in combinations(names, 2):
            assert bool(found[one] & found[other]) == ((one, other) not in apart)
        assert "a" in found[names[0]]
        groups = [{name for name in names if mark in found[name]} for mark in set().union(*found.values())]
        assert not any(one < other for one in groups for other in groups), "a letter that another one makes needless"


def test_many_groups_have_marks_of_their_own():
    names = [f"n{i}" for i in range(60)]
    marks = letters(names, set(combinations(names, 2)))
    assert len(set(marks)) == 60
    assert (marks[0], marks[51], marks[52]) == ("a", "Z", "a'")


def test_groups_find_what_is_there():
    rows = family(np.random.default_rng(0), [50.0, 50.0, 60.0, 40.0], seeds=5)
    groups = compare_all(MEAN, rows)
    assert groups.best == groups.order[0] == "m2"
    assert groups.order[3] == "m3"
    assert [groups.letters[name] for name in ("m2", "m0", "m1", "m3")] == ["a", "b", "b", "c"]
    assert groups.tied == ("m2",)
    assert groups.apart("m3", "m0")
    assert groups.apart("m0", "m3")
    assert not groups.apart("m0", "m1")
    assert groups.claim == "seeds"
    assert groups.variances.residual == pytest.approx(2 * 100, rel=0.1)
    assert groups.estimates["m0"] == estimate(MEAN, rows["m0"])
    first = groups.differences["m2", "m3"]
    assert first.value == pytest.approx(20, abs=2.5)
    assert groups.adjusted["m2", "m3"] == pytest.approx(holm([d.p for d in groups.differences.values()])[2])


def test_the_best_perplexity_is_the_lowest():
    generator = np.random.default_rng(0)
    tokens = generator.integers(5, 20, size=100)
    rows = {
        name: {seed: np.column_stack([tokens * generator.normal(mean, 0.3, size=100), tokens]) for seed in range(3)}
        for name, mean in (("worse", 3.0), ("better", 2.5))
    }
    groups = compare_all(PERPLEXITY, rows)
    assert groups.order == ("better", "worse")
    assert groups.differences["better", "worse"].value < 0
    assert groups.letters == {"better": "a", "worse": "b"}


def test_the_same_rows_tie_and_one_seed_makes_the_smaller_claim():
    rows = family(np.random.default_rng(0), [50.0, 80.0])
    groups = compare_all(MEAN, rows | {"twin": rows["m1"], "single": {0: rows["m0"][0]}})
    assert groups.letters["twin"] == groups.letters["m1"] == "a"
    assert set(groups.tied) == {"twin", "m1"}
    assert groups.adjusted["m1", "twin"] == 1
    assert groups.claim == "examples"
    assert groups.differences["m1", "m0"].claim == "seeds"
    assert groups.differences["m1", "single"].claim == "examples"
    assert groups.variances.seed is None


def test_two_methods_are_compared_as_a_pair_is():
    rows = family(np.random.default_rng(0), [50.0, 51.0])
    [(pair, found)] = compare_all(MEAN, rows).differences.items()
    assert found == difference(MEAN, rows[pair[0]], rows[pair[1]])


def test_what_cannot_be_ordered_is_refused():
    with pytest.raises(MeasurementError, match="no methods"):
        compare_all(MEAN, {})
    undirected = type("Undirected", (type(MEAN),), {"higher_is_better": None})("en")
    with pytest.raises(MeasurementError, match="no better direction"):
        compare_all(undirected, family(np.random.default_rng(0), [50.0]))
    alone = compare_all(MEAN, family(np.random.default_rng(0), [50.0]))
    assert (alone.letters, alone.tied, alone.adjusted, alone.variances) == ({"m0": "a"}, ("m0",), {}, None)


def spread_out(squares: np.ndarray, seed_df: float) -> list:
    """Differences whose mean squares of seeds are these."""
    rows = family(np.random.default_rng(0), [50.0, 51.0])
    found = difference(MEAN, rows["m0"], rows["m1"])
    return [replace(found, spread=Spread(square, 0.01, 0.001, seed_df, 199, 398)) for square in squares.tolist()]


def test_shared_seed_variances_find_the_distribution_they_were_drawn_from():
    """True variances drawn with 8 degrees of freedom around 2, each estimated with 3: what is left is their mean in
    proportion to the degrees of freedom, and worth 8 + 3 (Smyth 2004, equation 5)."""
    generator, count = np.random.default_rng(0), 8000
    true = 2.0 * 8 / generator.chisquare(8, size=count)
    squares = true * generator.chisquare(3, size=count) / 3
    moderated = moderate(MEAN, spread_out(squares, 3), methods=count)
    assert moderated[0].spread.seed_df == pytest.approx(3 + 8, rel=0.1)
    kept = np.array([found.spread.of_seeds for found in moderated])
    assert kept == pytest.approx((8 * 2.0 + 3 * squares) / 11, rel=0.1, abs=0.1)
    assert np.square(np.log(kept / true)).mean() < 0.5 * np.square(np.log(squares / true)).mean()


def test_equal_seed_variances_become_one():
    squares = 2.0 * np.random.default_rng(0).chisquare(50, size=45) / 50
    squares[:] = np.where(np.arange(45) < 44, squares.mean(), squares)
    moderated = moderate(MEAN, spread_out(squares, 2), methods=10)
    assert {round(found.spread.of_seeds, 6) for found in moderated} == {round(float(squares.mean()), 6)}
    assert moderated[0].spread.seed_df == 9 * 2  # what ten methods hold in all, though there are 45 pairs
    assert moderated[0].df > difference(MEAN, *family(np.random.default_rng(0), [50.0, 51.0]).values()).df


def test_sharing_finds_more_than_each_pair_on_its_own():
    generator = np.random.default_rng(3)
    rows = family(generator, [53.0] + [50.0] * 5)
    groups = compare_all(MEAN, rows)
    others = [f"m{number}" for number in range(1, 6)]
    assert sum(groups.apart("m0", name) for name in others) >= 3
    alone = [difference(MEAN, rows[one], rows[other]).p for one, other in groups.differences]
    assert sum(p < LEVEL for p in holm(alone)) < sum(p < LEVEL for p in groups.adjusted.values())


@pytest.mark.parametrize("seed_sd", [0.4, 2.0])
def test_equal_methods_are_seldom_told_apart(seed_sd):
    """Of 150 families of six equal methods with three seeds, about one in twenty may hold a false claim, or fewer."""
    generator = np.random.default_rng(4)
    false = 0
    for _ in range(150):
        groups = compare_all(MEAN, family(generator, [50.0] * 6, n=60, seed_sd=seed_sd))
        false += len(set(groups.letters.values())) > 1
    assert scipy.stats.binomtest(false, 150, LEVEL, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize(("examples", "methods", "effect"), [(6, 2, 1.43454513951), (200, 2, 0.19906465947)])
def test_the_detectable_difference_of_fixed_seeds_equals_statsmodels(examples, methods, effect):
    """statsmodels 0.15.0, TTestPower().solve_power(nobs=examples, alpha=0.05, power=0.8), in standard deviations."""
    assert detectable(Variances(None, 25.0), 1, examples, methods) == pytest.approx(5 * effect, rel=1e-4)


def test_the_detectable_difference_of_ten_methods_equals_statsmodels():
    """As above, at alpha=0.05 / 45."""
    assert detectable(Variances(None, 25.0), 3, 200, 10) == pytest.approx(5 * 0.29401504947, rel=1e-4)


def test_the_detectable_difference_of_seeds_alone_is_that_of_a_t_test():
    """Without noise of examples a comparison of two methods is a paired t-test over seeds, of power 0.8 by scipy."""
    found = detectable(Variances(4.0, 0.0), 5, 200)
    threshold = scipy.stats.t.isf(0.025, 4)
    assert scipy.stats.nct.sf(threshold, 4, found / (4 / 5) ** 0.5) == pytest.approx(0.8, abs=0.002)


@pytest.mark.parametrize("methods", [2, 6])
def test_a_detectable_difference_is_found_four_times_of_five(methods):
    generator, found, tried = np.random.default_rng(5), 0, 0
    size = detectable(Variances(2 * 1.0, 0.0, 2 * 100.0), 3, 200, methods)
    for _ in range(100):
        groups = compare_all(MEAN, family(generator, [50.0 + size] + [50.0] * (methods - 1)))
        apart = [groups.apart("m0", name) for name in groups.order if name != "m0"]
        found, tried = found + sum(apart), tried + len(apart)
    assert 0.65 < found / tried < 0.92


def test_needed_numbers_are_just_enough():
    variances = Variances(0.4, 50.0, 100.0)
    gap = 2.0
    examples, seeds = needed(gap, variances, 5, 200, 6)
    assert detectable(variances, 5, examples, 6) <= gap < detectable(variances, 5, examples - 1, 6)
    assert needed(detectable(variances, 7, 200, 6), variances, 5, 200, 6)[1] == 7
    assert needed(-gap, variances, 5, 200, 6) == (examples, seeds)
    assert needed(detectable(variances, 5, 200, 6), variances, 5, 200, 6) == (200, 5)


def test_no_number_of_the_wrong_kind_is_enough():
    """Examples cannot make up for seeds, nor seeds for examples, and of one seed nothing is known of others."""
    assert needed(0.5, Variances(4.0, 1.0), 3, 200) == (None, needed(0.5, Variances(4.0, 1.0), 3, 200)[1])
    assert needed(0.5, Variances(0.01, 100.0), 3, 200)[1] is None
    assert needed(0.5, Variances(None, 100.0), 1, 200)[1] is None
    assert needed(0.0, Variances(1.0, 100.0), 3, 200) == (None, None)


def test_what_never_varies_hides_nothing():
    assert detectable(Variances(0.0, 0.0), 3, 200) == 0
    assert needed(0.1, Variances(0.0, 0.0), 3, 200) == (6, 2)


@pytest.mark.parametrize(("seeds", "examples", "methods"), [(0, 200, 2), (3, 1, 2), (3, 200, 1)])
def test_too_little_to_compare_is_refused(seeds, examples, methods):
    with pytest.raises(ValueError, match="are the fewest"):
        detectable(Variances(1.0, 100.0), seeds, examples, methods)


def test_differences_are_told_in_the_unit_of_their_metric():
    assert tell(MEAN, 1.5) == 1.5
    assert tell(PERPLEXITY, 100 * np.log(1.25)) == pytest.approx(25)
