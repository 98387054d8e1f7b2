"""What a comparison can find: the smallest difference for so many seeds and examples, and how many a difference needs.

All differences and variances are on the scale of comparison (`seeds.tell` reports them): the metric's own, and on a
ratio scale 100 ln(score). The variances are those of a difference of two methods at one seed, as `seeds.Difference`
holds them or as assumed before any training: of two methods that share nothing they are twice one method's.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

from inlay.eval.groups import LEVEL
from inlay.eval.spread import Variances
from inlay.eval.statistics import FEWEST

POWER = 0.8
# Nobody has more than that, and no variance that is left there falls much further.
_MOST_EXAMPLES = 10**9
_MOST_SEEDS = 10**5
_DRAWS = 400  # of the mean square of seeds, at equal steps of probability
_ROUNDING = 1e-6  # of a probability


def detectable(variances: Variances, seeds: int, examples: int, methods: int = 2, power: float = POWER) -> float:
    """The smallest difference that is found with probability `power`, on the scale of comparison.

    Found means that Holm's first step, the hardest, finds it: p < 0.05 / number of pairs.

    Args:
        variances: of a difference; where `seed` is None, of a claim about examples alone.
        seeds: of each method; with one the claim is about examples alone.
        examples: 2 or more.
        methods: how many are compared, each with each.
        power: between 0.05 and 1.

    Raises:
        ValueError: fewer than one seed, two examples or two methods.
    """
    from scipy.optimize import brentq

    chance = _chance(variances, seeds, examples, methods)
    if chance(0.0) >= power:
        return 0.0
    high = 1.0
    while chance(high) < power:
        high *= 2
    return float(brentq(lambda difference: chance(difference) - power, 0.0, high))


def needed(
    difference: float, variances: Variances, seeds: int, examples: int, methods: int = 2, power: float = POWER
) -> tuple[int | None, int | None]:
    """How many examples at these seeds, and how many seeds at these examples, find a difference with this probability.

    Args:
        difference: the true one, on the scale of comparison; its sign does not matter.
        variances, methods, power: as of `detectable`.
        seeds, examples: what there is now.

    Returns:
        The smallest numbers in all, not those to be added; None where no number does, however large, and for seeds
        where their variance is unknown.

    Raises:
        ValueError: as `detectable`.
    """
    difference = abs(difference)

    def finds(seeds: int, examples: int) -> bool:
        return _chance(variances, seeds, examples, methods)(difference) >= power - _ROUNDING

    return (
        _smallest(lambda number: finds(seeds, number), FEWEST, _MOST_EXAMPLES),
        None if variances.seed is None else _smallest(lambda number: finds(number, examples), 2, _MOST_SEEDS),
    )


def _chance(variances: Variances, seeds: int, examples: int, methods: int) -> Callable[[float], float]:
    """The probability of finding a difference, and on the right side, as a function of its size.

    With seeds held fixed the test statistic follows the noncentral t distribution. Otherwise the threshold depends on
    the mean square of seeds that came out, and the mean over its distribution is taken, for methods of equal variances;
    the other mean squares have many degrees of freedom and are taken as known.
    """
    import numpy as np
    from scipy.special import chdtri, nctdtr, ndtr

    if seeds < 1 or examples < 2 or methods < 2:
        raise ValueError(f"{methods} methods, {seeds} seeds and {examples} examples: two, one and two are the fewest")
    level = LEVEL / math.comb(methods, 2)
    spread = (replace(variances, seed=None) if seeds == 1 else variances).spread(seeds, examples)
    if spread.variance == 0:
        return lambda difference: 1.0
    if spread.of_seeds is None:
        error, threshold = spread.variance**0.5, spread.quantile(level)
        return lambda difference: 1 - nctdtr(spread.df, difference / error, threshold)
    error = (spread.of_seeds + spread.of_examples - spread.residual) ** 0.5
    shares = (np.arange(_DRAWS) + 0.5) / _DRAWS
    df = (methods - 1) * spread.seed_df
    drawn = replace(spread, of_seeds=spread.of_seeds * chdtri(df, shares) / df, seed_df=df)
    thresholds = drawn.quantile(level) * drawn.variance**0.5
    return lambda difference: ndtr((difference - thresholds) / error).mean()


def _smallest(enough: Callable[[int], bool], fewest: int, most: int) -> int | None:
    """The smallest number from `fewest` to `most` that is enough, where every larger one is too; None if none is."""
    if not enough(most):
        return None
    return bisect_left(range(fewest, most), True, key=enough) + fewest
