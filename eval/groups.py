"""Which of several methods can be told apart: all pairs, one family of tests, and letters for those that tie.

Holm's procedure keeps the chance of any false claim among all pairs below 5 %. Of a few seeds a pair knows its own
seed variance badly, and among many pairs some look steady by luck; so the pairs lend each other what they know of it,
which makes false claims fewer and true differences easier to find (benchmarks/coverage.py).
"""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING

from inlay.eval import MeasurementError
from inlay.eval.metrics import Additive
from inlay.eval.seeds import Claim, Difference, Estimate, Row, judge, linearize, subtract, summarize
from inlay.eval.spread import Variances

if TYPE_CHECKING:
    from inlay.eval.seeds import Runs

LEVEL = 0.05
_EQUAL = 1e-6  # an excess of scatter over chance that is none
_MANY = 1e9  # degrees of freedom of a variance that is known

Pair = tuple[str, str]


@dataclass(frozen=True)
class Groups:
    """Methods in order of their scores, and which of them can be told apart.

    Attributes:
        order: names, the best first.
        estimates: of each method, in that order.
        differences: of every pair, the better method minus the other, seed variances moderated.
        adjusted: Holm's p-value of every pair; below 0.05 the two are apart.
        letters: methods that share a letter cannot be told apart; `a` is the best's.
        tied: the best method, and those that cannot be told from it.
        claim: `examples` if any pair or method had too few seeds for more.
        variances: of a difference, the mean over pairs that differ, for `power`; None where there are none. Its `seed`
            is None where the claim is `examples`.
    """

    order: tuple[str, ...]
    estimates: Mapping[str, Estimate]
    differences: Mapping[Pair, Difference]
    adjusted: Mapping[Pair, float]
    letters: Mapping[str, str]
    tied: tuple[str, ...]
    claim: Claim
    variances: Variances | None

    @property
    def best(self) -> str:
        """The method with the best score."""
        return self.order[0]

    def apart(self, one: str, other: str) -> bool:
        """Whether two methods can be told apart."""
        return self.adjusted[(one, other) if (one, other) in self.adjusted else (other, one)] < LEVEL


def compare_all(metric: Additive, rows: Mapping[str, Runs], score: str | None = None) -> Groups:
    """Compares every method with every other one.

    Args:
        metric: whose statistics these are.
        rows: each method's runs; all of the same examples in the same order.
        score: which of the metric's scores; may be left out where it has only one.

    Raises:
        MeasurementError: no rows, rows of different examples, a score that is not finite, or a metric of which neither
            direction is better.
        ValueError: as `seeds.linearize`.
    """
    return arrange(metric, {name: linearize(metric, runs, score) for name, runs in rows.items()})


def arrange(metric: Additive, rows: Mapping[str, Row]) -> Groups:
    """As `compare_all`, of methods that are linearized."""
    if metric.higher_is_better is None:
        raise MeasurementError(f"{metric.title} has no better direction, so methods cannot be ordered by it")
    if not rows:
        raise MeasurementError("no methods to compare")
    estimates = {name: summarize(metric, row) for name, row in rows.items()}
    order = sorted(rows, key=lambda name: estimates[name].value, reverse=metric.higher_is_better)
    pairs = list(combinations(order, 2))
    alone = [subtract(metric, rows[one], rows[other]) for one, other in pairs]
    differences = dict(zip(pairs, moderate(metric, alone, len(rows)), strict=True))
    adjusted = dict(zip(pairs, holm([found.p for found in differences.values()]), strict=True))
    apart = {pair for pair in pairs if adjusted[pair] < LEVEL}
    made = {found.claim for found in (*estimates.values(), *differences.values())}
    claim: Claim = "examples" if "examples" in made else "seeds"
    return Groups(
        order=tuple(order),
        estimates={name: estimates[name] for name in order},
        differences=differences,
        adjusted=adjusted,
        letters=dict(zip(order, letters(order, apart), strict=True)),
        tied=tuple(name for name in order if (order[0], name) not in apart),
        claim=claim,
        variances=_typical([found.variances for found in alone if found.df], claim),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: where each that is below a level is a claim, the chance of any false claim
    among all of them is below that level.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def letters(order: Sequence[str], apart: Collection[Pair]) -> list[str]:
    """The compact letter display: one string of letters a name; two share one exactly if they are not apart.

    Args:
        order: names, the best first.
        apart: pairs of names that can be told apart, each either way round.

    Source: Piepho 2004, "An Algorithm for a Letter-Based Representation of All-Pairwise Comparisons" (insert
    and absorb).
    """
    groups = [frozenset(order)]
    for pair in sorted(tuple(sorted(pair, key=order.index)) for pair in apart):
        split = [group - {name} for group in groups for name in pair if group.issuperset(pair)]
        whole = [group for group in groups if not group.issuperset(pair)]
        found = list(dict.fromkeys(whole + split))
        groups = [group for group in found if not any(group < other for other in found)]
    places = sorted(sorted(map(order.index, group)) for group in groups)
    marks = [string.ascii_letters[i % 52] + "'" * (i // 52) for i in range(len(places))]
    return ["".join(mark for mark, group in zip(marks, places, strict=True) if i in group) for i in range(len(order))]


def moderate(metric: Additive, differences: Sequence[Difference], methods: int) -> list[Difference]:
    """The same differences, each with a mean square of seeds that draws on those of all the others.

    Mean squares are taken to scatter around a common one as widely as they did. Where they agree as well as chance lets
    equal ones agree, a pair's own and the common one become one; where they do not, its own counts the more. Three
    seeds cannot always tell which: of methods whose seed variances differ tenfold the noisier may be claimed apart more
    often than promised, if less often than without sharing where seeds matter (benchmarks/coverage.py).

    Args:
        metric: whose differences these are.
        differences: of all pairs of the methods.
        methods: how many; of fewer than three nothing is to be learned.

    Source: Smyth 2004, "Linear Models and Empirical Bayes Methods for Assessing Differential Expression in Microarray
    Experiments", sections 4 and 6.2.
    """
    spreads = [found.spread for found in differences if found.spread and found.spread.of_seeds is not None]
    if methods < 3 or len(spreads) < 2:
        return list(differences)
    prior, prior_df = _prior([spread.of_seeds for spread in spreads], [spread.seed_df for spread in spreads])
    # All methods together hold no more than this; pairs overlap, so theirs must not be added up.
    most = (methods - 1) * sum(spread.seed_df for spread in spreads) / len(spreads)

    def shared(found: Difference) -> Difference:
        spread = found.spread
        if not spread or spread.of_seeds is None:
            return found
        own = spread.seed_df / (spread.seed_df + prior_df)
        square = own * spread.of_seeds + (1 - own) * prior
        spread = replace(spread, of_seeds=square, seed_df=min(most, spread.seed_df + prior_df))
        return judge(metric, replace(found, note=f"{found.note}, seed variance shared"), spread)

    return [shared(found) for found in differences]


def _typical(variances: Sequence[Variances], claim: Claim) -> Variances | None:
    """The mean of each component; of seeds where the claim is about them."""
    if not variances:
        return None
    seed = fmean(each.seed or 0.0 for each in variances) if claim == "seeds" else None
    return Variances(seed, fmean(each.example for each in variances), fmean(each.residual for each in variances))


def _prior(squares: Sequence[float], dfs: Sequence[float]) -> tuple[float, float]:
    """The common mean square, and the degrees of freedom that it is worth, by the moments of the logarithms."""
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import polygamma, psi

    halves = np.asarray(dfs) / 2
    # One that is next to nothing by luck would decide the mean of the logarithms alone.
    positive = np.maximum(squares, 1e-5 * np.median(squares))
    if not positive.all():
        return 0.0, 0.0
    logs = np.log(positive) - psi(halves) + np.log(halves)
    excess = float(logs.var(ddof=1) - polygamma(1, halves).mean())
    if excess <= _EQUAL:
        return float(np.mean(squares)), _MANY
    # 1 / x < trigamma(x) < 1 / x + 1 / x^2
    half = brentq(lambda x: polygamma(1, x) - excess, 1 / excess, max(2 / excess, (2 / excess) ** 0.5))
    return float(np.exp(logs.mean() + psi(half) - np.log(half))), 2 * half
