"""Simulates what a comparison promises: 95 % intervals cover, false claims stay rare, differences are found.

    python benchmarks/coverage.py [--simulations 2000] [--families 500]

Scores are drawn from populations whose truth is known: normal ones, zeros and ones, and log-normal losses behind a
perplexity. An example is as hard for every method to a part, for one method at every seed to another, and the rest is
of one example at one seed; on top comes what a seed does to all examples. Writes benchmarks/results/coverage.json and
prints tables. Exit code 1 where intervals cover less than 93 %, false claims exceed 5 % by more than chance explains,
or a difference that should be found 80 % of the time is not found 70 to 90 % of it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import binomtest, multivariate_normal

from inlay.eval.groups import LEVEL, compare_all, holm
from inlay.eval.metrics import Additive, find
from inlay.eval.power import detectable
from inlay.eval.seeds import Difference, Estimate, difference, estimate
from inlay.eval.spread import Spread, Variances

OUT = Path(__file__).resolve().parent / "results" / "coverage.json"
SEED = 20_240
SEEDS, EXAMPLES, SHARES = (2, 3, 5, 10), (200, 1000), (0.0, 0.1, 0.5, 0.9)
# Squared correlations of one example's score: with other methods' too, and with this method's at other seeds.
EVERY_METHOD, EVERY_SEED = 0.5, 0.7
REQUIRED_COVERAGE, REQUIRED_POWER = 0.93, (0.70, 0.90)


@dataclass(frozen=True)
class Population:
    """Scores whose truth is known, made of standard normal numbers.

    Attributes:
        metric: what they are scores of.
        covariance: of the scores of one example, from the correlation of the normal numbers behind them.
        slope: by how much a shift of the normal numbers, equal for all examples, shifts the mean score.
        truth: the score of the whole population, from the variance of such shifts, in the metric's unit.
        draw: statistics from normal numbers (..., n), shifts that broadcast with them, and each example's length.
    """

    metric: Additive
    covariance: Callable[[float], float]
    slope: float
    truth: Callable[[float], float]
    draw: Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

    def variances(self, methods: int, share: float, seeds: int, examples: int) -> Variances:
        """Of one method's scores, or of a difference of two; seeds are `share` of the variance of the mean."""
        own = self.covariance(EVERY_SEED) - (self.covariance(EVERY_METHOD) if methods == 2 else 0.0)
        residual = self.covariance(1.0) - self.covariance(EVERY_SEED)
        rest = methods * (own / examples + residual / (seeds * examples))
        return Variances(rest * share / (1 - share) * seeds, methods * own, methods * residual)

    def sample(
        self, generator: np.random.Generator, methods: int, seeds: int, examples: int, shifts: NDArray[np.float64]
    ) -> list[dict[int, NDArray[np.float64]]]:
        """Runs of several methods; `shifts` of the normal numbers, shape (methods, seeds)."""
        parts = (EVERY_METHOD, EVERY_SEED - EVERY_METHOD, 1 - EVERY_SEED)
        shapes = ((1, 1, examples), (methods, 1, examples), (methods, seeds, examples))
        numbers = sum(
            math.sqrt(part) * generator.standard_normal(shape) for part, shape in zip(parts, shapes, strict=True)
        )
        lengths = generator.integers(5, 31, size=examples).astype(np.float64)
        statistics = self.draw(numbers, shifts[..., None], lengths)
        return [dict(enumerate(method)) for method in statistics]


def normal() -> Population:
    """Scores around 50 of 100, with a standard deviation of 10."""
    return Population(
        metric=find("token_f1")("en"),
        covariance=lambda correlation: 100 * correlation,
        slope=10.0,
        truth=lambda variance: 50.0,
        draw=lambda numbers, shifts, lengths: (0.5 + 0.1 * (numbers + shifts))[..., None],
    )


def binary(share: float = 0.7) -> Population:
    """One where a normal number is below a threshold, else zero."""
    threshold = float(scipy.stats.norm.ppf(share))

    def both(correlation: float) -> float:
        if correlation == 1:
            return share
        return multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf([threshold, threshold])

    return Population(
        metric=find("accuracy")("en"),
        covariance=lambda correlation: 100**2 * (both(correlation) - share**2),
        slope=100 * math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi),
        truth=lambda variance: 100 * float(ndtr(threshold / math.sqrt(1 + variance))),
        draw=lambda numbers, shifts, lengths: (numbers - shifts < threshold).astype(np.float64)[..., None],
    )


def log_normal(spread: float = 0.6) -> Population:
    """Losses per token that are log-normal over examples of 5 to 30 tokens; a seed shifts them by nats."""
    mean = 2.0 * math.exp(spread**2 / 2)
    tokens = np.arange(5, 31)
    # An example counts by its length, so the effective number of them is smaller.
    weight = float((tokens**2).mean() / tokens.mean() ** 2)
    nats = 0.1  # by a shift of one

    def draw(numbers: NDArray, shifts: NDArray, lengths: NDArray) -> NDArray:
        nll = lengths * (2.0 * np.exp(spread * numbers) + nats * shifts)
        return np.stack([nll, np.broadcast_to(lengths, nll.shape)], axis=-1)

    return Population(
        metric=find("perplexity")("en"),
        covariance=lambda correlation: 100**2 * weight * mean**2 * math.expm1(correlation * spread**2),
        slope=100 * nats,
        truth=lambda variance: math.exp(mean),
        draw=draw,
    )


POPULATIONS = {"normal": normal, "zeros and ones": binary, "log-normal": log_normal}


def cover(shape: str, seeds: int, examples: int, share: float, simulations: int) -> list[dict]:
    """How often the intervals of a method's score and of a difference of two equal methods hold the truth."""
    population = POPULATIONS[shape]()
    generator = np.random.default_rng([SEED, *map(ord, shape), seeds, examples, int(100 * share)])
    rows = []
    for what, methods in (("estimate", 1), ("difference", 2)):
        variances = population.variances(methods, share, seeds, examples)
        variance = variances.seed / methods / population.slope**2  # of one method's shifts
        covered, covered_plain, lengths = 0, 0, []
        for _ in range(simulations):
            shifts = math.sqrt(variance) * generator.standard_normal((methods, seeds))
            runs = population.sample(generator, methods, seeds, examples, shifts)
            if methods == 1:
                found, truth = estimate(population.metric, *runs), population.truth(variance)
            else:
                found, truth = difference(population.metric, *runs), 0.0
            covered += found.ci95[0] <= truth <= found.ci95[1]
            covered_plain += methods == 2 and abs(found.scaled) <= plain_half(found.spread)
            lengths.append(length(population.metric, found))
        setting = {"shape": shape, "of": what, "seeds": seeds, "examples": examples, "seed_share": share}
        ideal = 2 * 1.96 * float(variances.spread(seeds, examples).variance) ** 0.5
        row = setting | rated("coverage", covered, simulations) | {"length": float(np.mean(lengths)) / ideal}
        rows.append(row | ({"coverage_plain": covered_plain / simulations} if methods == 2 else {}))
    return rows


def length(metric: Additive, found: Estimate | Difference) -> float:
    """Of the interval, on the scale of comparison."""
    low, high = found.ci95
    if not metric.ratio:
        return high - low
    return 100 * math.log(high / low if isinstance(found, Estimate) else (100 + high) / (100 + low))


def plain_half(spread: Spread) -> float:
    """Half the length of the interval with Satterthwaite's degrees of freedom as they are, for comparison."""
    parts = (spread.of_seeds, spread.seed_df), (spread.of_examples, spread.example_df)
    scatter = sum(square**2 / df for square, df in (*parts, (spread.residual, spread.residual_df)))
    df = max(spread.seed_df, float(spread.variance) ** 2 / scatter)
    return float(scipy.stats.t.ppf(0.975, df) * spread.variance**0.5)


def settings() -> list[tuple[str, int, int, float]]:
    """Shape, seeds, examples and share of the seeds; the hardest with few examples only, on which they do not hang."""
    every = product(POPULATIONS, SEEDS, EXAMPLES, SHARES)
    return [setting for setting in every if setting[2] == min(EXAMPLES) or (setting[1] > 2 and setting[3] <= 0.5)]


def rated(name: str, hits: int, trials: int) -> dict:
    """A share, and the ends of its 95 % Clopper-Pearson interval."""
    ends = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    return {name: hits / trials, "low": float(ends.low), "high": float(ends.high), "trials": trials}


def claim(
    share: float, families: int, scatter: float = 1.0, planted: bool = False, methods: int = 10, seeds: int = 3
) -> dict:
    """Of families of equal methods, how often any two are told apart; or how often a planted difference is found.

    Args:
        share: the seeds' share of the variance of a mean difference.
        families: how many.
        scatter: seed variance of every third method, as a multiple of the others'.
        planted: the first method differs from all others by what `detectable` says.
        methods, seeds: of each family.
    """
    population, examples = normal(), min(EXAMPLES)
    generator = np.random.default_rng([SEED, methods, seeds, int(100 * share), int(scatter), planted])
    variances = population.variances(2, share, seeds, examples)
    size = detectable(variances, seeds, examples, methods) if planted else 0.0
    deviations = np.sqrt(variances.seed / 2 * np.where(np.arange(methods) % 3, 1.0, scatter)) / population.slope
    names = [f"method {number}" for number in range(methods)]
    false, alone, found = 0, 0, 0
    for _ in range(families):
        shifts = deviations[:, None] * generator.standard_normal((methods, seeds))
        shifts[0] += size / population.slope
        runs = dict(zip(names, population.sample(generator, methods, seeds, examples, shifts), strict=True))
        groups = compare_all(population.metric, runs)
        apart = [pair for pair, p in groups.adjusted.items() if p < LEVEL]
        true = [pair for pair in apart if planted and names[0] in pair]
        found += len(true)
        false += len(apart) > len(true)
        if not planted:
            own = [difference(population.metric, runs[one], runs[other]).p for one, other in groups.adjusted]
            alone += min(holm(own)) < LEVEL
    setting = {"methods": methods, "seeds": seeds, "examples": examples, "seed_share": share, "scatter": scatter}
    if planted:
        return setting | {"size": size} | rated("found", found, families * (methods - 1))
    return setting | rated("false_claims", false, families) | {"without_sharing": alone / families}


def find_pair(share: float, seeds: int, examples: int, simulations: int) -> dict:
    """How often two methods are told apart that differ by what `detectable` says."""
    population = normal()
    generator = np.random.default_rng([SEED, 2, seeds, examples, int(100 * share)])
    variances = population.variances(2, share, seeds, examples)
    size = detectable(variances, seeds, examples)
    found = 0
    for _ in range(simulations):
        shifts = math.sqrt(variances.seed / 2) / population.slope * generator.standard_normal((2, seeds))
        shifts[0] += size / population.slope
        found += difference(population.metric, *population.sample(generator, 2, seeds, examples, shifts)).p < LEVEL
    setting = {"methods": 2, "seeds": seeds, "examples": examples, "seed_share": share, "scatter": 1.0, "size": size}
    return setting | rated("found", found, simulations)


def broken(result: dict) -> list[str]:
    """The promises that were not kept; a rate of false claims counts as broken where chance does not explain it."""
    failures = []
    for row in result["coverage"]:
        if row["coverage"] < REQUIRED_COVERAGE:
            failures.append(f"covers {row['coverage']:.1%}: {row}")
    for row in result["false_claims"]:
        if row["scatter"] == 1 and row["low"] > LEVEL:
            failures.append(f"false claims {row['false_claims']:.1%}: {row}")
    for row in result["power"]:
        if not REQUIRED_POWER[0] <= row["found"] <= REQUIRED_POWER[1]:
            failures.append(f"found {row['found']:.1%}: {row}")
    return failures


def show(result: dict) -> None:
    """Prints the tables."""
    print("coverage of 95 % intervals, and their mean length over that with known variances; of differences also the")
    print("coverage with plain degrees of freedom")
    print(f"{'':<29}{'seeds':>6}{'rows':>6}" + "".join(f"{share:>15.0%} of seeds" for share in SHARES))
    for shape, what, seeds, examples in product(POPULATIONS, ("estimate", "difference"), SEEDS, EXAMPLES):
        cells = "".join(
            f"{row['coverage']:>10.1%}{row['length']:>6.2f}"
            + (f"{row['coverage_plain']:>8.1%}" if "coverage_plain" in row else " " * 8)
            for row in result["coverage"]
            if (row["shape"], row["of"], row["seeds"], row["examples"]) == (shape, what, seeds, examples)
        )
        if cells:
            print(f"{shape:<16}{what:<13}{seeds:>6}{examples:>6}{cells}")
    print(
        "\nfamilies of equal methods with any false claim (95 % interval), and if pairs did not share their variances"
    )
    for row in result["false_claims"]:
        uneven = f", every third x {row['scatter']:g}" if row["scatter"] > 1 else ""
        print(
            f"{row['methods']:>3} methods x {row['seeds']} seeds, {row['seed_share']:>4.0%} of seeds{uneven:<18}"
            f"{row['false_claims']:>7.1%} ({row['low']:.1%}-{row['high']:.1%}){row['without_sharing']:>7.1%}"
        )
    print("\na difference of the size said to be found 80 % of the time is found")
    for row in result["power"]:
        print(
            f"{row['methods']:>3} methods x {row['seeds']} seeds x {row['examples']} rows, "
            f"{row['seed_share']:>4.0%} of seeds, {row['size']:.2f} points: {row['found']:.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000, help="of each setting")
    parser.add_argument("--families", type=int, default=500, help="of each setting")
    asked = parser.parse_args()
    started = time.perf_counter()
    coverage: list[dict] = []
    for setting in settings():
        coverage += cover(*setting, asked.simulations)
    false_claims = [claim(share, asked.families) for share in (0.0, 0.1, 0.5, 0.9)]
    false_claims += [claim(0.5, asked.families, methods=3), claim(0.5, asked.families, seeds=5)]
    false_claims += [claim(share, asked.families, scatter=10.0) for share in (0.1, 0.5)]
    power = [find_pair(share, seeds, min(EXAMPLES), asked.simulations) for share, seeds in product((0.1, 0.5), (3, 5))]
    power += [claim(share, asked.families, planted=True) for share in (0.1, 0.5)]
    result = {
        "seed": SEED,
        "simulations": asked.simulations,
        "families": asked.families,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
        "seconds": round(time.perf_counter() - started),
        "coverage": coverage,
        "false_claims": false_claims,
        "power": power,
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(result)
    print(f"\n{result['seconds']} s; {OUT}")
    failures = broken(result)
    for failure in failures:
        print(f"broken: {failure}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
