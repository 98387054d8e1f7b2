"""Who stands where in a comparison: the order of its rows, the rules between tie groups, and what a row is called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from inlay.tuner.comparison.records import ComparisonRecord, EstimateRecord, RowRecord
from inlay.tuner.report.figures import MISSING, figure, interval
from inlay.tuner.report.text import one_line

_REFERENCES = {
    "method": "",
    "full": "reference: every weight trained",
    "few_shot": "reference: the untouched base with examples in its context",
    "base": "reference: the untouched base",
}
_STATES = {"incomparable": "not comparable", "done": "not measured"}


@dataclass(frozen=True)
class Standing:
    """The rows in one score.

    `ranked`: the methods, best mean first (highest first where no direction is better). `references`: full
    fine-tuning, then the untouched base with examples in its context and without. `others`: rows without a place, for
    a reason.
    """

    ranked: list[RowRecord]
    references: list[RowRecord]
    others: list[RowRecord]

    @property
    def placed(self) -> list[RowRecord]:
        """The rows that have this score: ranked, then references."""
        return [*self.ranked, *self.references]

    @property
    def untouched(self) -> list[RowRecord]:
        """The references that were not trained."""
        return [row for row in self.references if row.kind != "full"]


def stand(record: ComparisonRecord, score: str) -> Standing:
    """The rows of `record` in `score`."""
    info = record.score_info.get(score)
    sign = 1 if info and info.higher_is_better is False else -1
    placed = [row for row in record.rows if row.status == "done" and score in row.scores]
    references = [row for row in placed if row.kind != "method"]
    ranked = [row for row in placed if row.kind == "method"]
    return Standing(
        ranked=sorted(ranked, key=lambda row: sign * row.scores[score].value),
        references=sorted(references, key=lambda row: list(_REFERENCES).index(row.kind)),
        others=[row for row in record.rows if row not in placed],
    )


def breaks(rows: Sequence[RowRecord], score: str) -> set[str]:
    """Labels of the rows that share no group with the row above them."""
    apart = set()
    for above, below in pairwise(rows):
        if not set(above.scores[score].group) & set(below.scores[score].group):
            apart.add(below.label)
    return apart


def reference(row: RowRecord) -> str:
    """What a reference row is, in words; empty for a method."""
    return _REFERENCES[row.kind]


def state(row: RowRecord) -> str:
    """Why a row has no place: `failed: out of memory at step 1`."""
    return ": ".join(filter(None, [_STATES.get(row.status, row.status), one_line(row.reason)]))


def scores(record: ComparisonRecord) -> list[str]:
    """Names of the scores, the one that orders the rows first."""
    return list(dict.fromkeys([record.score, *record.score_info]))


def mean_and_interval(estimate: EstimateRecord) -> tuple[str, str]:
    """Both as they are printed."""
    ends = interval(estimate.value, estimate.ci95) if estimate.ci95 else MISSING
    return figure(estimate.value, estimate.ci95), ends


def detectable(record: ComparisonRecord) -> str:
    """What the comparison could have found, in a sentence; empty where it cannot be told."""
    if record.detectable is None:
        return ""
    info = record.score_info.get(record.score)
    unit = "%" if info and info.ratio else "pp" if info and info.unit == "%" else one_line(info.unit) if info else ""
    least = f"{record.detectable:.2g} {unit}".strip()
    return f"A difference of {least} would be found in four of five such comparisons; a smaller one is usually a tie."


def slugs(record: ComparisonRecord) -> dict[str, str]:
    """A name for anchors by label: `LoRA r=16` is `lora-r-16`; unique, so that `pair-a-b` names one pair."""
    found: dict[str, str] = {}
    for number, row in enumerate(record.rows, 1):
        name = re.sub(r"[^a-z0-9]+", "-", row.label.lower()).strip("-")[:40] or f"row-{number}"
        while name in found.values():
            name = f"{name}-{number}"
        found[row.label] = name
    return found
