"""What a comparison claims of methods that are known to be equal: one method's stored seeds, dealt out as if several.

    inlay compare quickstart --methods lora --seeds 30 --set train.max_steps=40 --output COMPARISON
    python benchmarks/calibration.py COMPARISON ROW [--score rougeL] [--draws 2000]

COMPARISON is the folder of a comparison in which the method of the row called ROW has at least 20 seeds.
Each draw deals three seeds to each of as many methods as the seeds allow, ten at most, and compares two of them and
all. No claim between them is true. Then one of them is moved by the difference that is said to be found 80 % of the
time. Writes benchmarks/results/calibration.json.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from inlay.eval.groups import LEVEL, arrange
from inlay.eval.metrics import Additive, find, gather, names
from inlay.eval.power import detectable
from inlay.eval.seeds import Row, linearize, tell
from inlay.eval.spread import Variances, measure
from inlay.tuner.comparison.evidence import read_evidence
from inlay.tuner.comparison.store import read_comparison

OUT = Path(__file__).resolve().parent / "results" / "calibration.json"
SEEDS_EACH, MOST_METHODS, FEWEST_SEEDS = 3, 10, 20


def calibrate(
    metric: Additive, statistics: NDArray[np.float64], score: str | None = None, draws: int = 2000, seed: int = 0
) -> dict:
    """Rates of false claims among equal methods, with upper 95 % limits, and of a planted difference found.

    The limits (Clopper and Pearson 1934, one-sided) are of the draws: they say how well the rates of these seeds are
    known, not how much other seeds of the same method could change them.

    Args:
        metric: whose statistics these are.
        statistics: of one method's runs, shape (seeds, n, k).
        score: which of the metric's scores, where it has several.
        draws: how many deals.
        seed: of the deals.
    """
    if len(statistics) < FEWEST_SEEDS:
        raise SystemExit(f"error: {len(statistics)} seeds are too few to deal out; {FEWEST_SEEDS} are needed")
    row = linearize(metric, dict(enumerate(statistics)), score)
    methods = min(MOST_METHODS, len(statistics) // SEEDS_EACH)
    variances = between_equals(row)
    examples = row.scores.shape[1]
    sizes = {number: detectable(variances, SEEDS_EACH, examples, number) for number in (2, methods)}
    generator = np.random.default_rng(seed)
    false, found = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0)
    for _ in range(draws):
        dealt = deal(row, methods, generator)
        for number, size in sizes.items():
            rows = dict(list(dealt.items())[:number])
            false[number] += min(arrange(metric, rows).adjusted.values()) < LEVEL
            groups = arrange(metric, rows | {"0": move(metric, rows["0"], size)})
            found[number] += sum(groups.apart("0", name) for name in rows if name != "0")
    return {
        "metric": metric.title,
        "seeds": len(statistics),
        "examples": examples,
        "draws": draws,
        "variances": {"seed": variances.seed, "residual": variances.residual},
        "families": [
            {
                "methods": number,
                "false_claims": false[number] / draws,
                "at_most": float(binomtest(false[number], draws).proportion_ci(0.90, method="exact").high),
                "planted": tell(metric, size),
                "found": found[number] / (draws * (number - 1)),
            }
            for number, size in sizes.items()
        ],
    }


def between_equals(row: Row) -> Variances:
    """Of a difference of two methods that are one: what examples have in common cancels, all else is there twice."""
    _, own = measure(row.scores)
    return Variances(2 * own.seed, 0.0, 2 * own.residual)


def deal(row: Row, methods: int, generator: np.random.Generator) -> dict[str, Row]:
    """Disjoint runs of one method as if each few were another's, numbered alike so that they pair."""
    hands = generator.permutation(len(row.seeds))[: methods * SEEDS_EACH].reshape(methods, SEEDS_EACH)
    return {
        str(name): replace(row.at(tuple(row.seeds[place] for place in hand)), seeds=tuple(range(SEEDS_EACH)))
        for name, hand in enumerate(hands)
    }


def move(metric: Additive, row: Row, size: float) -> Row:
    """The row with every score better or worse by `size`, on the scale of comparison."""
    values = row.values * math.exp(size / 100) if metric.ratio else row.values + size
    return replace(row, values=values, scores=row.scores + size)


def statistics_of(folder: Path, label: str, metric: Additive) -> NDArray[np.float64]:
    """The statistics of a row's cells, shape (seeds, examples, k), from what they left on disk."""
    row = next(row for row in read_comparison(folder).rows if row.label == label)
    return np.stack([gather(metric, read_evidence(folder / cell, "tuned").records) for cell in row.cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("row")
    parser.add_argument("--score", help="the comparison's own, where it is left out")
    parser.add_argument("--draws", type=int, default=2000)
    asked = parser.parse_args()
    record = read_comparison(asked.comparison)
    score = asked.score or record.score
    metric = next(found for name in names() if score in (found := find(name)).scores)(record.language)
    result = calibrate(metric, statistics_of(asked.comparison, asked.row, metric), score, asked.draws)
    OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{result['metric']}: {result['seeds']} seeds x {result['examples']} examples, {result['draws']} draws")
    for row in result["families"]:
        print(
            f"{row['methods']:>3} equal methods of {SEEDS_EACH} seeds: any false claim {row['false_claims']:.1%} "
            f"(at most {row['at_most']:.1%}); planted {row['planted']:.3g} found {row['found']:.1%}"
        )
    print(OUT)


if __name__ == "__main__":
    main()
