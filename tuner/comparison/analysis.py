"""From finished cells to what they show: estimates, groups, differences, costs, and which rows cannot be compared."""

from __future__ import annotations

import math
import os
import statistics as means
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inlay import adapters
from inlay.eval.groups import Groups, compare_all, holm, moderate
from inlay.eval.metrics import Additive, Metric, Whole, gather, values
from inlay.eval.seeds import Difference, difference, estimate
from inlay.tuner.comparison.costs import costs, forgetting
from inlay.tuner.comparison.evidence import Evidence, read_evidence
from inlay.tuner.comparison.inputs import RowInput
from inlay.tuner.comparison.records import EstimateRecord, PairRecord, RowRecord, ScoreInfo

if TYPE_CHECKING:
    from inlay.eval.seeds import Runs
    from inlay.tuner.records import BaseRecord, RunRecord

APART = 0.05


@dataclass(frozen=True)
class Analysis:
    """What the finished rows show.

    Attributes:
        rows: all rows; those that are ranked first, the best first, then references, then what is not ranked.
        pairs: of the ranked rows, and of each of them with each reference.
        groups: of the score that orders the rows; None where fewer than two rows can be ranked.
        info: what each score is.
    """

    rows: list[RowRecord]
    pairs: list[PairRecord]
    groups: Groups | None
    info: dict[str, ScoreInfo]

    def row(self, label: str) -> RowRecord:
        """The row of this label."""
        return next(row for row in self.rows if row.label == label)


def analyse(inputs: Sequence[RowInput], metrics: Sequence[Metric], score: str, folder: Path) -> Analysis:
    """Analyses the rows whose cells are all finished; the others keep their reasons.

    Args:
        inputs: all rows.
        metrics: whose scores are wanted.
        score: the one that orders the rows.
        folder: of the comparison; paths of cells are told from there.
    """
    found = {row.label: _evidence(row) for row in inputs if row.done}
    odd = _incomparable({row.label: row for row in inputs}, found)
    ranked = [row for row in inputs if row.kind == "method" and row.label in found and row.label not in odd]
    others = [row for row in inputs if row.kind != "method" and row.label in found and row.label not in odd]
    scores: dict[str, dict[str, EstimateRecord]] = {row.label: {} for row in inputs}
    pairs: list[PairRecord] = []
    info: dict[str, ScoreInfo] = {}
    groups = None
    for metric in metrics:
        runs = _runs(metric, found) if isinstance(metric, Additive) else {}
        for column, name in enumerate(metric.scores):
            info[name] = _info(metric, found)
            if isinstance(metric, Whole):
                for label, cells in found.items():
                    scores[label][name] = _whole(metric, cells, column)
                continue
            assert isinstance(metric, Additive)
            grouped = _grouped(metric, {row.label: runs[row.label] for row in ranked}, name)
            for label, of_row in runs.items():
                scores[label][name] = _estimate(metric, label, of_row, name, grouped)
            pairs += _pairs(grouped, name) + _against(metric, ranked, others, runs, name)
            groups = grouped if name == score else groups
    merged = _merged_latency(found)
    records = [_record(row, scores[row.label], odd.get(row.label, ""), folder, merged) for row in inputs]
    order = {name: place for place, name in enumerate(groups.order if groups else ())}
    rank = {"method": 0, "full": 1, "few_shot": 2, "base": 3}
    records.sort(key=lambda row: (row.status != "done", rank[row.kind], order.get(row.label, 0)))
    return Analysis(records, pairs, groups, info)


def _merged_latency(found: Mapping[str, list[Evidence]]) -> float | None:
    """Measured once for all methods that can be merged: on the base with plain layers everywhere."""
    known = [evidence.eval.merged_latency_seconds for cells in found.values() for evidence in cells]
    return next((seconds for seconds in known if seconds is not None), None)


def _evidence(row: RowInput) -> list[Evidence]:
    return [read_evidence(cell.path, row.who) for cell in row.cells]


def _runs(metric: Additive, found: Mapping[str, list[Evidence]]) -> dict[str, Runs]:
    """Statistics of every row's runs by seed. A base has one run, which stands for any seed."""
    seeds = sorted({evidence.run.seed for cells in found.values() for evidence in cells})
    made: dict[str, Runs] = {}
    for label, cells in found.items():
        own = {evidence.run.seed: gather(metric, evidence.records) for evidence in cells}
        untrained = all(evidence.who != "tuned" for evidence in cells)
        made[label] = dict.fromkeys(seeds, next(iter(own.values()))) if untrained else own
    return made


def _incomparable(inputs: Mapping[str, RowInput], found: Mapping[str, list[Evidence]]) -> dict[str, str]:
    """Rows that cannot stand in one ranking with the first one, and what differs (hazard: unequal budgets)."""
    reasons: dict[str, str] = {}
    methods = [label for label in found if inputs[label].kind == "method"]
    if not methods:
        return reasons
    seeded = {evidence.run.seed: evidence for evidence in found[methods[0]]}
    for label, cells in found.items():
        for evidence in cells:
            trained = inputs[label].kind == "method"
            first = seeded.get(evidence.run.seed, found[methods[0]][0])
            if said := _difference_in_protocol(evidence, first, trained=trained):
                reasons.setdefault(label, said.format(other=methods[0]))
    return reasons


def _difference_in_protocol(one: Evidence, first: Evidence, *, trained: bool) -> str:
    """What was not the same when two runs were made, a phrase with `{other}` for the other's name; empty where all
    was."""
    here, there = one.run, first.run
    own, base = _of_base(here), _of_base(there)
    if (own.sha256, own.quantization) != (base.sha256, base.quantization):
        return f"ran on another base than {{other}} ({_plainly(own.model)}, {own.quantization})"
    if own.compute_dtype != base.compute_dtype:
        return f"computed in {own.compute_dtype}, {{other}} in {base.compute_dtype}"
    if [(r.id, r.references, r.tokens) for r in one.records] != [(r.id, r.references, r.tokens) for r in first.records]:
        return "was measured on other rows or tokens than {other}"
    if (own.prompt_format, one.prompts) != (base.prompt_format, first.prompts):
        return "was prompted in another way than {other}"
    if (one.eval.split, one.eval.decoding) != (first.eval.split, first.eval.decoding):
        return f"was decoded in another way than {{other}} ({one.eval.decoding})"
    if one.eval.language != first.eval.language:
        return f"was scored as {one.eval.language}, {{other}} as {first.eval.language}"
    if not trained:
        return ""
    if here.data and there.data and here.data.rows_sha256 != there.data.rows_sha256:
        return "was trained on other rows than {other}"
    seen, wanted = [r.train.rows_seen if r.train else 0 for r in (here, there)]
    if seen != wanted:
        return f"saw {seen:,} training rows, {{other}} {wanted:,}"
    if here.seed != there.seed:  # another order of the rows: other rows may be seen
        return ""
    seen, wanted = [r.train.tokens if r.train else 0 for r in (here, there)]
    return f"saw {seen:,} training tokens, {{other}} {wanted:,}" if seen != wanted else ""


def _of_base(run: RunRecord) -> BaseRecord:
    assert run.base is not None
    return run.base


def _plainly(name: str) -> str:
    """A name that `format` leaves as it is."""
    return name.replace("{", "(").replace("}", ")")


def _info(metric: Metric, found: Mapping[str, list[Evidence]]) -> ScoreInfo:
    counts = {len(record.references) for cells in found.values() for record in cells[0].records}
    return ScoreInfo(
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        ratio=metric.ratio,
        signature=metric.signature(counts.pop() if len(counts) == 1 else None),
    )


def _whole(metric: Whole, cells: Sequence[Evidence], column: int) -> EstimateRecord:
    each = [values(metric, evidence.records)[column] for evidence in cells]
    note = "resampling would bias it, so it has no interval"
    return EstimateRecord(value=means.fmean(each), ci95=None, seeds=each, group="", note=note)


def _grouped(metric: Additive, runs: Mapping[str, Runs], score: str) -> Groups | None:
    """The groups of the ranked rows; None where there are none to tell apart or no direction to order them by."""
    if not runs or metric.higher_is_better is None:
        return None
    return compare_all(metric, runs, score)


def _estimate(metric: Additive, label: str, runs: Runs, score: str, groups: Groups | None) -> EstimateRecord:
    if groups and label in groups.letters:
        found, group = groups.estimates[label], groups.letters[label]
    else:
        once = len({id(statistics) for statistics in runs.values()}) == 1  # untrained: one run stands for any seed
        found, group = estimate(metric, dict([next(iter(runs.items()))]) if once else runs, score), ""
    return EstimateRecord(
        value=found.value,
        ci95=_possible(metric, found.ci95),
        seeds=list(found.seed_values),
        group=group,
        note=found.note,
    )


def _possible(metric: Additive, ci95: tuple[float, float] | None) -> tuple[float, float] | None:
    """The part of an interval that scores can lie in: none is negative, and shares and points end at 100."""
    if ci95 is None:
        return None
    most = 100.0 if metric.unit in ("%", "points") else math.inf
    return max(0.0, ci95[0]), min(most, ci95[1])


def _pairs(groups: Groups | None, score: str) -> list[PairRecord]:
    if groups is None:
        return []
    return [
        _pair(a, b, score, found, groups.adjusted[a, b], groups.apart(a, b))
        for (a, b), found in groups.differences.items()
    ]


def _against(
    metric: Additive, ranked: Sequence[RowInput], others: Sequence[RowInput], runs: Mapping[str, Runs], score: str
) -> list[PairRecord]:
    """Every ranked row against each reference: one family of tests a reference."""
    made = []
    for reference in others:
        alone = [difference(metric, runs[row.label], runs[reference.label], score) for row in ranked]
        found = moderate(metric, alone, len(ranked) + 1)
        for row, one, adjusted in zip(ranked, found, holm([one.p for one in found]), strict=True):
            made.append(_pair(row.label, reference.label, score, one, adjusted, adjusted < APART))
    return made


def _pair(a: str, b: str, score: str, found: Difference, adjusted: float, apart: bool) -> PairRecord:
    return PairRecord(
        a=a,
        b=b,
        score=score,
        value=found.value,
        ci95=found.ci95,
        unit=found.unit,
        p=found.p,
        adjusted=adjusted,
        apart=apart,
        claim=found.claim,
    )


def _record(
    row: RowInput, scores: Mapping[str, EstimateRecord], odd: str, folder: Path, merged: float | None
) -> RowRecord:
    status, reason = "done" if row.done else "waiting", ""
    if row.refusal and not row.cells:
        status, reason = "refused", row.refusal
    elif row.failed:
        status, reason = "failed", row.failed
    elif row.refusal:
        status, reason = "failed", row.refusal
    elif odd:
        status, reason = "incomparable", odd
    made = [cell.record for cell in row.cells if cell.record and row.who == "tuned"]
    trained = [record.train for record in made if record.train]
    return RowRecord(
        label=row.label,
        kind=row.kind,
        method=row.method,
        title=row.title,
        options=dict(row.options),
        learning_rate=row.learning_rate,
        status=status,
        reason=reason,
        differs=list(row.differs),
        seeds=[cell.seed for cell in row.cells],
        cells=[_relative(cell.path, folder) for cell in row.cells],
        steps=trained[0].steps if trained else 0,
        rows_seen=trained[0].rows_seen if trained else 0,
        tokens_seen=trained[0].tokens if trained else 0,
        scores=dict(scores),
        cost=costs(made, merged if adapters.find(row.method).mergeable else None) if made and row.done else None,
        forgetting=forgetting(made) if made and row.done else None,
        trials=list(row.trials),
        chosen=dict(row.chosen),
        at_edge=list(row.at_edge),
    )


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path.absolute(), folder.absolute())
