"""How far a mean over seeds and examples may be from the truth, from the two-way random layout seeds x examples.

    x[s, i] = mean + seed s + example i + residual[s, i]        each drawn at random, S seeds, n examples

    mean square     expected                            degrees of freedom
    of seeds        residual + n * seed variance        S - 1
    of examples     residual + S * example variance     n - 1
    residual        residual variance                   (S - 1) (n - 1)

    Var(mean) = seed variance / S + example variance / n + residual variance / (S n)
              = (of seeds + of examples - residual) / (S n)

Searle, Casella and McCulloch 1992, "Variance Components", ch. 4; Satterthwaite 1946, "An Approximate Distribution of
Estimates of Variance Components".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = float | NDArray[np.float64]

# Of two or three seeds a mean square that came out small by chance makes an interval too short twice: its variance is
# too small, and the seeds' few degrees of freedom hardly count. So the degrees of freedom, and they alone, are taken at
# the limit that the mean square of seeds is below with this confidence. Intervals then cover at any share of the seeds,
# from two seeds on; benchmarks/coverage.py shows it, and what they cover with plain degrees of freedom.
CAUTION = 0.8


@dataclass(frozen=True)
class Variances:
    """What makes one score differ from another, in squared units of the score.

    Attributes:
        seed: between seeds, the same for all examples; None where it is unknown (one seed) or not asked for.
        example: between examples, the same for all seeds.
        residual: of one example at one seed, beyond both; with one seed it is part of `example`.
    """

    seed: float | None
    example: float
    residual: float = 0.0

    def spread(self, seeds: int, examples: int) -> Spread:
        """The spread that a mean over so many seeds and examples is expected to have."""
        residual = self.residual / (seeds * examples)
        return Spread(
            of_seeds=None if self.seed is None else self.seed / seeds + residual,
            of_examples=self.example / examples + residual,
            residual=residual,
            seed_df=seeds - 1,
            example_df=examples - 1,
            residual_df=(seeds - 1) * (examples - 1),
        )


@dataclass(frozen=True)
class Spread:
    """Mean squares over S n, which are shares of the variance of the mean, and their degrees of freedom.

    Numbers or arrays of one shape. `of_seeds` is None where seeds are held fixed: the mean is then of these seeds.
    """

    of_seeds: Numbers | None
    of_examples: Numbers
    residual: Numbers
    seed_df: float
    example_df: float
    residual_df: float

    @property
    def variance(self) -> Numbers:
        """Of the mean; no component counts as less than nothing."""
        import numpy as np

        if self.of_seeds is None:
            return self.of_examples
        between = np.maximum(self.of_seeds - self.residual, 0.0) + np.maximum(self.of_examples - self.residual, 0.0)
        return between + self.residual

    @property
    def df(self) -> Numbers:
        """Satterthwaite's degrees of freedom of `variance`, at the upper limit of the mean square of seeds."""
        import numpy as np
        from scipy.special import chdtri

        if self.of_seeds is None:
            return self.example_df
        upper = self.of_seeds * self.seed_df / chdtri(self.seed_df, CAUTION)
        variance = Spread(upper, self.of_examples, self.residual, 1, 1, 1).variance
        parts = ((upper, self.seed_df), (self.of_examples, self.example_df), (self.residual, self.residual_df))
        scatter = sum(square**2 / df for square, df in parts)
        fewest, most = min(self.seed_df, self.example_df), self.seed_df + self.example_df + self.residual_df
        ratio = np.divide(variance**2, scatter, out=np.full(np.shape(scatter), float(most)), where=scatter > 0)
        return np.clip(ratio, fewest, most)

    @property
    def half(self) -> Numbers:
        """Half the length of the 95 % interval of the mean."""
        return self.quantile(0.05) * self.variance**0.5

    def quantile(self, level: float) -> Numbers:
        """How many standard errors from zero a mean must be to be told from it, two-sided, at this level."""
        from scipy.special import stdtrit

        return -stdtrit(self.df, level / 2)

    def p(self, mean: float) -> float:
        """Two-sided p-value of Student's t-test that the true mean is zero; the variance must not be."""
        from scipy.special import stdtr

        return float(min(1.0, 2 * stdtr(self.df, -abs(mean) / self.variance**0.5)))


def measure(scores: NDArray[np.float64]) -> tuple[Spread, Variances]:
    """The spread of the mean of scores (S, n), n > 1, and the estimated components behind it, none below zero."""
    import numpy as np

    seeds, examples = scores.shape
    if seeds == 1:
        variance = float(scores.var(ddof=1))
        return Spread(None, variance / examples, 0.0, 0, examples - 1, 0), Variances(None, variance)
    by_seed, by_example = scores.mean(axis=1), scores.mean(axis=0)
    residuals = scores - by_seed[:, None] - by_example + scores.mean()
    degrees = seeds - 1, examples - 1, (seeds - 1) * (examples - 1)
    residual = float(np.square(residuals).sum()) / degrees[2]
    # Means over the other factor: their variances are the mean squares over n and over S.
    of_seeds, of_examples = float(by_seed.var(ddof=1)), float(by_example.var(ddof=1))
    spread = Spread(of_seeds / seeds, of_examples / examples, residual / (seeds * examples), *degrees)
    variances = Variances(max(0.0, of_seeds - residual / examples), max(0.0, of_examples - residual / seeds), residual)
    return spread, variances


def measure_unpaired(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[Spread, Variances]:
    """As `measure`, of the mean of `a` less the mean of `b`: the same examples, but other seeds, two or more in each.

    Args:
        a, b: scores, shapes (S, n) and (T, n).
    """
    (one, own), (other, its) = measure(a), measure(b)
    paired, _ = measure((a.mean(axis=0) - b.mean(axis=0))[None])
    of_seeds = one.of_seeds + other.of_seeds
    # Welch 1947: the degrees of freedom of the sum of two mean squares.
    scatter = one.of_seeds**2 / one.seed_df + other.of_seeds**2 / other.seed_df
    spread = Spread(
        of_seeds=of_seeds,
        of_examples=paired.of_examples,
        residual=one.residual + other.residual,
        seed_df=of_seeds**2 / scatter if scatter else one.seed_df + other.seed_df,
        example_df=paired.example_df,
        residual_df=one.residual_df + other.residual_df,
    )
    example = max(0.0, (spread.of_examples - spread.residual) * a.shape[1])
    return spread, Variances(own.seed + its.seed, example, own.residual + its.residual)
