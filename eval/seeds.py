"""Scores of a method that was trained with several seeds, and differences between two methods, with their uncertainty.

Two claims are kept apart. *These trained models on other examples*: seeds are held fixed, examples are drawn. *This
method with other seeds*, and other examples: both are drawn, and the variance of the mean has a part for each. With one
seed only the first can be made.

A corpus score such as BLEU is no mean over examples, so each example's influence on it is taken from the score without
that example (the jackknife, Efron and Tibshirani 1993, ch. 11), after which every metric is a mean. Scores on a ratio
scale (perplexity) are compared as 100 ln(score), so that a difference of 1 is a change of about 1 %; what is reported
is transformed back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from inlay.eval import MeasurementError
from inlay.eval.metrics import Additive
from inlay.eval.spread import Spread, Variances, measure, measure_unpaired
from inlay.eval.statistics import FEWEST, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # Statistics of a method's runs by seed, each (n, k), all of the same examples in the same order. What was not
    # trained, like the untouched base, has the same statistics at every seed.
    Runs = Mapping[int, NDArray[np.float64]]

Claim = Literal["seeds", "examples"]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """What a method scores.

    Attributes:
        value: mean over seeds of the score, in the metric's unit; the geometric mean on a ratio scale.
        ci95: 95 % interval over other seeds and examples, with one seed over other examples; None where there is none.
        seed_values: each seed's score.
        variances: on the scale of comparison.
        df: of the interval's t quantile.
        claim: what the interval covers.
        note: how the interval was made, or why there is none.
    """

    value: float
    ci95: tuple[float, float] | None
    seed_values: tuple[float, ...]
    variances: Variances
    df: float
    claim: Claim
    note: str


@dataclass(frozen=True)
class Difference:
    """One method's score minus another's on the same examples.

    Attributes:
        value: in `unit`; on a ratio scale the difference in % of the other's score.
        ci95: 95 % interval; None where there is none, or no claim can be made.
        p: of no difference, two-sided; 1 where no claim can be made.
        df: of the t distribution that both come from; 0 where there is none.
        variances: of the differences, on the scale of comparison.
        scaled: `value` on the scale of comparison: itself, on a ratio scale 100 ln of the ratio.
        unit: `pp`, `points`, `%`, ...
        claim: `seeds` covers other seeds and examples, `examples` other examples alone.
        note: what the numbers rest on, or why there is no claim.
        spread: of the difference, which interval and p-value rest on; None where they rest on none.
    """

    value: float
    ci95: tuple[float, float] | None
    p: float
    df: float
    variances: Variances
    scaled: float
    unit: str
    claim: Claim
    note: str
    spread: Spread | None = None


@dataclass(frozen=True)
class Row:
    """A method's runs with every score taken apart into its examples.

    Attributes:
        seeds: sorted.
        statistics: shape (S, n, k).
        values: the score of each seed, in the metric's unit, shape (S,).
        scores: on the scale of comparison, shape (S, n); the mean over a seed's examples is its score.
    """

    seeds: tuple[int, ...]
    statistics: NDArray[np.float64]
    values: NDArray[np.float64]
    scores: NDArray[np.float64]

    def at(self, seeds: tuple[int, ...]) -> Row:
        """The runs with these seeds alone."""
        chosen = [self.seeds.index(seed) for seed in seeds]
        return Row(seeds, self.statistics[chosen], self.values[chosen], self.scores[chosen])


def linearize(metric: Additive, runs: Runs, score: str | None = None) -> Row:
    """Takes the scores of a method's runs apart into examples.

    Args:
        metric: whose statistics these are.
        runs: statistics by seed.
        score: which of the metric's scores; may be left out where it has only one.

    Raises:
        MeasurementError: no runs, runs of unequal shape, no examples, or a score that is not finite, with or without
            any one example; on a ratio scale also one that is not positive.
        ValueError: the metric has no such score, or several and none is named.
    """
    import numpy as np

    column = _column(metric, score)
    if len({statistics.shape for statistics in runs.values()}) != 1:
        shapes = ", ".join(f"seed {seed}: {statistics.shape}" for seed, statistics in runs.items())
        raise MeasurementError(f"{metric.title}: runs of one shape (examples, statistics) were expected, not {shapes}")
    seeds = tuple(sorted(runs))
    statistics = np.stack([runs[seed] for seed in seeds]).astype(np.float64)
    n = statistics.shape[1]
    if not n:
        raise MeasurementError(f"{metric.title}: no examples")
    sums = statistics.sum(axis=1)
    values = metric.value(sums, n)[:, column]
    whole = _scaled(metric, values)
    scores = np.repeat(whole[:, None], n, axis=1)
    if n > 1:
        without = _scaled(metric, metric.value(sums[:, None] - statistics, n - 1)[..., column])
        scores = scores + (n - 1) * (without.mean(axis=1, keepdims=True) - without)
    return Row(seeds, statistics, values, scores)


def estimate(metric: Additive, runs: Runs, score: str | None = None) -> Estimate:
    """What a method scores, as the mean over its seeds; arguments and errors as of `linearize`."""
    return summarize(metric, linearize(metric, runs, score))


def difference(metric: Additive, a: Runs, b: Runs, score: str | None = None) -> Difference:
    """`a` minus `b`, paired by example and by seed: a claim about other seeds where both have two or more.

    Seeds that only one of them has are left out; where they share fewer than two, the seeds of each are drawn on their
    own and the examples alone are paired. With one seed of either the claim is about other examples.

    Raises:
        MeasurementError: as `linearize`, and for different numbers of examples.
        ValueError: as `linearize`.
    """
    return subtract(metric, linearize(metric, a, score), linearize(metric, b, score))


def difference_on_examples(metric: Additive, a: Runs, b: Runs, score: str | None = None) -> Difference:
    """`a` minus `b` for these very models on other examples, paired by example; errors as of `difference`."""
    return subtract(metric, linearize(metric, a, score), linearize(metric, b, score), "examples")


def summarize(metric: Additive, row: Row) -> Estimate:
    """What a linearized method scores."""
    mean, n = _mean(metric, row), row.scores.shape[1]
    value, values = _unscaled(metric, mean), tuple(row.values.tolist())
    claim: Claim = "seeds" if len(values) > 1 else "examples"
    if n == 1:
        return Estimate(value, None, values, Variances(None, 0.0), 0.0, claim, "one example")
    spread, variances = measure(row.scores)
    df, variance, half = float(spread.df), float(spread.variance), float(spread.half)
    note = f"{_count(len(values), 'seed')}, {n} examples"
    constant = _is_constant(spread, row)
    if metric.proportion:
        # Korn and Graubard 1998: a clustered sample is worth as many independent examples as would give its variance.
        effective = n if constant else value * (100 - value) / variance
        ci95 = wilson(value / 100, effective, float(spread.quantile(0.05)))
        return Estimate(value, ci95, values, variances, df, claim, f"Wilson, {note}")
    if constant:
        return Estimate(value, None, values, variances, df, claim, "constant")
    ci95 = _unscaled(metric, mean - half), _unscaled(metric, mean + half)
    return Estimate(value, ci95, values, variances, df, claim, f"t, {note}")


def subtract(metric: Additive, a: Row, b: Row, claim: Claim = "seeds") -> Difference:
    """`a` minus `b`.

    Args:
        metric: whose scores these are.
        a, b: linearized.
        claim: the one to make, where there are seeds enough for it.

    Raises:
        MeasurementError: they hold different numbers of examples.
    """
    n = a.scores.shape[1]
    if a.statistics.shape[1:] != b.statistics.shape[1:]:
        found = f"{n} examples of one method cannot be paired with {b.scores.shape[1]} of another"
        raise MeasurementError(f"{metric.title}: {found}")
    a, b = _paired_by_seed(a, b)
    if min(len(a.seeds), len(b.seeds)) == 1:
        claim = "examples"
    scaled = _mean(metric, a) - _mean(metric, b)
    unit = "%" if metric.ratio else "pp" if metric.unit == "%" else metric.unit
    found = Difference(tell(metric, scaled), None, 1.0, 0.0, Variances(None, 0.0), scaled, unit, claim, "")
    differing = _count_differing(a, b)
    if not differing:
        return replace(found, value=0.0, scaled=0.0, note="the same")
    if min(n, differing) < FEWEST:
        few = "examples" if n < FEWEST else "examples on which the two differ"
        return replace(found, note=f"no claim: fewer than {FEWEST} {few}")
    spread, variances = _measure_difference(a, b, claim)
    found = replace(found, variances=variances, note=_describe(a, b, claim))
    if _is_constant(spread, a, b):
        if abs(scaled) < _ROUNDING:
            return replace(found, value=0.0, scaled=0.0, note="the same")
        # All examples moved alike: no spread, but of a change that is telling, as much as to a sign test.
        return replace(found, ci95=(found.value, found.value), p=0.5 ** (n - 1), df=float(spread.df))
    return judge(metric, found, spread)


def judge(metric: Additive, found: Difference, spread: Spread) -> Difference:
    """The same difference with the interval and the p-value that this spread gives it."""
    half = float(spread.half)
    ends = tell(metric, found.scaled - half), tell(metric, found.scaled + half)
    return replace(found, ci95=ends, p=spread.p(found.scaled), df=float(spread.df), spread=spread)


def tell(metric: Additive, scaled: float) -> float:
    """A difference on the scale of comparison as it is reported: itself, on a ratio scale in % of the other's score."""
    return 100 * math.expm1(scaled / 100) if metric.ratio else scaled


def _paired_by_seed(a: Row, b: Row) -> tuple[Row, Row]:
    """The runs that two rows can be paired by; all of both where that would leave one run of several."""
    shared = tuple(seed for seed in a.seeds if seed in b.seeds)
    if shared and len(shared) >= min(2, len(a.seeds), len(b.seeds)):
        return a.at(shared), b.at(shared)
    return a, b


def _measure_difference(a: Row, b: Row, claim: Claim) -> tuple[Spread, Variances]:
    """The spread of the difference of two rows' means, and the components of a difference behind it."""
    if claim == "examples":
        return measure((a.scores.mean(axis=0) - b.scores.mean(axis=0))[None])
    if a.seeds == b.seeds:
        return measure(a.scores - b.scores)
    return measure_unpaired(a.scores, b.scores)


def _count_differing(a: Row, b: Row) -> int:
    """How many examples two rows do not have the same statistics of, seed by seed, or unpaired in the mean."""
    import numpy as np

    if a.seeds == b.seeds:
        return int((a.statistics != b.statistics).any(axis=(0, 2)).sum())
    means = a.statistics.mean(axis=0), b.statistics.mean(axis=0)
    return int((~np.isclose(*means, rtol=_ROUNDING, atol=_ROUNDING)).any(axis=1).sum())


def _is_constant(spread: Spread, *rows: Row) -> bool:
    """Whether a mean has no spread beyond the rounding of the rows it was computed from."""
    largest = max(float(abs(row.scores).max()) for row in rows)
    return float(spread.variance) <= (_ROUNDING * max(1.0, largest)) ** 2


def _describe(a: Row, b: Row, claim: Claim) -> str:
    """What a difference rests on, in words."""
    n = a.scores.shape[1]
    if a.seeds != b.seeds:
        return f"unpaired seeds ({len(a.seeds)} and {len(b.seeds)}), {n} examples"
    seeds = _count(len(a.seeds), "seed")
    return f"these {seeds}, {n} examples" if claim == "examples" and len(a.seeds) > 1 else f"{seeds}, {n} examples"


def _column(metric: Additive, score: str | None) -> int:
    """Where the score called so stands among the metric's."""
    if score is None and len(metric.scores) == 1:
        return 0
    if score not in metric.scores:
        raise ValueError(f"{metric.title} has {', '.join(metric.scores)}: name one of them, not {score}")
    return metric.scores.index(score)


def _mean(metric: Additive, row: Row) -> float:
    """The mean score over seeds, on the scale of comparison; as that of `row.scores`, less their rounding."""
    return float(_scaled(metric, row.values).mean())


def _scaled(metric: Additive, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores on the scale of comparison, where their differences mean the same everywhere."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):  # reported just below
        scaled = 100 * np.log(values) if metric.ratio else values
    if not np.isfinite(scaled).all():
        expected = "a finite number above zero" if metric.ratio else "a finite number"
        raise MeasurementError(f"{metric.title}, with or without one example, is not {expected}")
    return scaled


def _unscaled(metric: Additive, scaled: float) -> float:
    """A score from the scale of comparison, in the metric's unit."""
    return math.exp(scaled / 100) if metric.ratio else scaled


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
