"""What a comparison may hope to find, told before it trains anything: assumed from the spread of the untouched base."""

from __future__ import annotations

from collections.abc import Sequence

from inlay.eval import Record
from inlay.eval.metrics import Additive, gather
from inlay.eval.power import detectable
from inlay.eval.seeds import estimate, tell
from inlay.eval.spread import Variances
from inlay.tuner.comparison.prepare import Ready
from inlay.tuner.report.figures import counted, plain
from inlay.tuner.report.scores import score_name

# A difference of two methods is taken to vary over examples as much as the base's own score does (as two models do
# whose scores correlate by one half), and over seeds such that three seeds add as much again.
SEEDS_ASSUMED = 3


def foreseen(ready: Ready, records: Sequence[Record]) -> str:
    """One line: the smallest difference that these seeds and rows can be expected to find; assumed, so with a `?`."""
    metric = next(metric for metric in ready.base.metrics if ready.score in metric.scores)
    seeds, examples = len(ready.plan.seeds), len(records)
    methods = sum(row.kind == "method" for row in ready.trained)
    rows = f"{counted(seeds, 'seed')} x {counted(examples, 'row')}"
    if not isinstance(metric, Additive) or examples < 2 or methods < 2:
        return f"power    {rows}: no two rows to tell apart"
    example = estimate(metric, {0: gather(metric, records)}, ready.score).variances.example
    if not example:
        return f"power    {rows}: not known, the base scores every row alike"
    seed = SEEDS_ASSUMED * example / examples if seeds > 1 else None
    gap = abs(tell(metric, detectable(Variances(seed, example), seeds, examples, methods)))
    unit = "%" if metric.ratio else "pp" if metric.unit == "%" else metric.unit
    return (
        f"power    {rows}: a difference in {score_name(ready.score)} under ~{plain(gap)}? {unit} will usually be a tie "
        "(assumed from the base's own spread; the table tells what was measured)"
    )
