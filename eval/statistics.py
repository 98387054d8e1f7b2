"""Scores with their uncertainty, from records: what a benchmark reports and what a change against another model earned.

Intervals are over examples: other examples of the same kind would have given another score. A resample draws n
examples with replacement, which is to weight each one's statistics with a multinomial count, so that many resamples are
one matrix product; the interval lies between the 2.5th and the 97.5th percentile (Efron and Tibshirani 1993, ch. 13).
Shares of examples get Wilson's interval (1927), which holds at 0 and 100 % too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from inlay.eval import Change, MeasurementError, Record, Score
from inlay.eval.metrics import Additive, Metric, Whole, gather, values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 2000
# With fewer examples no change is told from chance: if all five of five move one way, a sign test gives p = 0.06.
FEWEST = 6
_Z95 = NormalDist().inv_cdf(0.975)
_ROUNDING = 1e-9
_BLOCK = 2**20  # weights held at once


def summarize(
    metrics: Sequence[Metric], records: Sequence[Record], *, seed: int = 0
) -> tuple[dict[str, Score], dict[str, list[float]]]:
    """The scores of all metrics by name, and of those that have any, the values of each example in their order.

    Args:
        metrics: their scores' names are the keys.
        records: all examples of the benchmark.
        seed: of the resamples.

    Raises:
        MeasurementError: no records, a record that cannot be scored, or a score that is not finite.
    """
    scores: dict[str, Score] = {}
    examples: dict[str, list[float]] = {}
    for metric in metrics:
        counts = {len(record.references) for record in records}
        signature = metric.signature(counts.pop() if len(counts) == 1 else None)
        if isinstance(metric, Whole):
            found = [(value, None, "resampling would bias it") for value in values(metric, records)]
        else:
            assert isinstance(metric, Additive)
            gathered = gather(metric, records)
            found = interval(metric, gathered, seed=seed)
            if metric.per_example:
                each = metric.example_values(gathered)
                examples |= {name: each[:, column].tolist() for column, name in enumerate(metric.scores)}
        for name, (value, ci95, note) in zip(metric.scores, found, strict=True):
            scores[name] = Score(value, ci95, metric.unit, metric.higher_is_better, signature, len(records), note)
    return scores, examples


def compare(
    metrics: Sequence[Metric], new: Sequence[Record], old: Sequence[Record], *, seed: int = 0
) -> dict[str, Change]:
    """The change of every score from `old` to `new`, by name.

    Args:
        metrics: their scores' names are the keys.
        new, old: what two models left on the same examples, in the same order.
        seed: of the resamples.

    Raises:
        MeasurementError: the two do not hold the same examples, answers and scored tokens, or one cannot be scored.
    """
    _check_pairs(new, old)
    changes: dict[str, Change] = {}
    for metric in metrics:
        if isinstance(metric, Whole):
            pairs = list(zip(values(metric, new), values(metric, old), strict=True))
            unit = "pp" if metric.unit == "%" else metric.unit
            found = [Change(new - old, None, unit, "same" if new == old else "unclear") for new, old in pairs]
        else:
            assert isinstance(metric, Additive)
            found = change(metric, gather(metric, new), gather(metric, old), seed=seed)
        changes |= zip(metric.scores, found, strict=True)
    return changes


def interval(
    metric: Additive, gathered: NDArray[np.float64], *, seed: int, resamples: int = RESAMPLES
) -> list[tuple[float, tuple[float, float] | None, str]]:
    """Value, 95 % interval and how it was made, for each score of the metric.

    Args:
        metric: whose statistics these are.
        gathered: statistics, shape (n, k).
        seed: of the resamples; the same seed and n give the same resamples for every metric.
        resamples: how many.

    Returns:
        One triple per score, in the metric's unit. The interval is None for a single example, and, with the note
        `constant`, where no resample differs from another.

    Raises:
        MeasurementError: a score is not finite.
    """
    import numpy as np

    n = len(gathered)
    values = metric.value(gathered.sum(axis=0), n)
    _check_finite(metric, values)
    if n < 2:
        return [(value, None, "one example") for value in values.tolist()]
    if metric.proportion:
        return [(value, wilson(value / 100, n), "Wilson") for value in values.tolist()]
    drawn = np.concatenate([metric.value(sums, n) for sums in _resampled(gathered, resamples, seed)])
    return [
        (value, ends, "bootstrap" if ends else "constant")
        for value, ends in zip(values.tolist(), _percentiles(drawn), strict=True)
    ]


def change(
    metric: Additive,
    new: NDArray[np.float64],
    old: NDArray[np.float64],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> list[Change]:
    """The change of each score, with a paired interval: both models are scored on the same resamples.

    Args:
        metric: whose statistics these are.
        new, old: statistics of the same examples in the same order, shape (n, k).
        seed: of the resamples.
        resamples: how many.

    Returns:
        One change per score: a difference, or for a ratio scale the difference in % of the old value. Its verdict is
        `same` where the two models score the same on every resample, `better` or `worse` where the interval excludes
        zero.

    Raises:
        MeasurementError: a change is not finite.
    """
    import numpy as np

    n, k = old.shape

    def differences(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        after, before = metric.value(sums[..., :k], n), metric.value(sums[..., k:], n)
        return 100 * (after / before - 1) if metric.ratio else after - before

    paired = np.hstack([new, old])
    values = differences(paired.sum(axis=0))
    _check_finite(metric, values)
    unit = "%" if metric.ratio else "pp" if metric.unit == "%" else metric.unit
    drawn = np.concatenate([differences(sums) for sums in _resampled(paired, resamples, seed)])
    return [
        _judged(value, ci95, n, unit, metric.higher_is_better)
        for value, ci95 in zip(values.tolist(), _percentiles(drawn), strict=True)
    ]


def _judged(value: float, ci95: tuple[float, float] | None, n: int, unit: str, higher_is_better: bool | None) -> Change:
    """A change with the word that its interval earned; the interval is None where all resamples agree."""
    if ci95 is None and abs(value) < _ROUNDING:
        return Change(0.0, None, unit, "same")
    if ci95 is None and n > 1:
        ci95 = value, value  # every example moved alike: no spread, but of a change that is telling
    if ci95 is None or n < FEWEST or ci95[0] <= 0 <= ci95[1] or higher_is_better is None:
        return Change(value, ci95, unit, "unclear")
    return Change(value, ci95, unit, "better" if (value > 0) == higher_is_better else "worse")


def _resampled(gathered: NDArray[np.float64], resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Sums of statistics over resampled examples, in blocks of shape (some, k): a bounded number of weights at once."""
    import numpy as np

    n = len(gathered)
    generator = np.random.default_rng(seed)
    share = np.full(n, 1 / n)
    block = max(1, _BLOCK // n)
    for start in range(0, resamples, block):
        weights = generator.multinomial(n, share, size=min(block, resamples - start))
        yield weights.astype(np.float64) @ gathered


def _percentiles(drawn: NDArray[np.float64]) -> list[tuple[float, float] | None]:
    """The 2.5th and 97.5th percentile of each column; None for a column without spread beyond rounding."""
    import numpy as np

    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    rounding = _ROUNDING * np.maximum(1.0, np.abs(drawn).max(axis=0))
    flat = np.ptp(drawn, axis=0) <= rounding
    ends = zip(low.tolist(), high.tolist(), strict=True)
    return [None if still else pair for still, pair in zip(flat, ends, strict=True)]


def wilson(share: float, n: float, quantile: float = _Z95) -> tuple[float, float]:
    """Wilson's score interval of a share between 0 and 1 among n, in %; `quantile` in standard errors."""
    spread = quantile**2 / n
    center = (share + spread / 2) / (1 + spread)
    half = (spread * (share * (1 - share) + spread / 4)) ** 0.5 / (1 + spread)
    return 100 * max(0.0, center - half), 100 * min(1.0, center + half)


def _check_finite(metric: Metric, values: NDArray[np.float64]) -> None:
    import numpy as np

    if not np.isfinite(values).all():
        raise MeasurementError(f"{metric.title} is {values.tolist()}: a finite number was expected")


def _check_pairs(new: Sequence[Record], old: Sequence[Record]) -> None:
    """Refuses two sets of records that are not of the same examples, answers and scored tokens, in the same order."""
    if len(new) != len(old):
        raise MeasurementError(f"{len(new)} examples of one model cannot be paired with {len(old)} of another")
    for position, (one, other) in enumerate(zip(new, old, strict=True), start=1):
        if one.id != other.id:
            raise MeasurementError(f"example {position} is `{one.id}` for one model and `{other.id}` for the other")
        for what in ("references", "labels", "tokens", "label_tokens"):
            if getattr(one, what) != getattr(other, what):
                raise MeasurementError(
                    f"example `{one.id}` was scored over different {what.replace('_', ' ')} by the two models: "
                    f"{getattr(one, what)} and {getattr(other, what)}"
                )
