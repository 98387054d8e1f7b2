"""Which row differs from which: every pair once, the row that is ahead against the ones behind it."""

from __future__ import annotations

from dataclasses import dataclass

from inlay.tuner.comparison.records import ComparisonRecord, PairRecord, RowRecord
from inlay.tuner.comparison.standing import slugs, stand
from inlay.tuner.report.figures import MISSING, Interval, figure, interval
from inlay.tuner.report.text import one_line

_SUFFIX = {"%": " %", "pp": " pp"}


@dataclass(frozen=True)
class Difference:
    """Row minus column, as printed; `a` and `b` name the two in addresses. `verdict`: `tie`, or what the row is than
    the column."""

    anchor: str
    a: str
    b: str
    value: str
    ends: str
    verdict: str
    adjusted: str
    apart: bool


@dataclass(frozen=True)
class Against:
    """A row and its differences, one for each of the columns; None where the pair stands in another row."""

    label: str
    cells: list[Difference | None]


@dataclass(frozen=True)
class Matrix:
    """The pairs of one score."""

    key: str
    columns: list[str]
    rows: list[Against]


def matrix(record: ComparisonRecord, score: str) -> Matrix:
    """The pairs in `score`, rows and columns in the order of the quality figure."""
    pairs = {(pair.a, pair.b): pair for pair in record.pairs if pair.score == score}
    named = {label for pair in pairs for label in pair}
    rows = [row for row in stand(record, score).placed if row.label in named]
    found = []
    for place, row in enumerate(rows[:-1]):
        cells = [None] * place + [_difference(record, pairs, row, other) for other in rows[place + 1 :]]
        found.append(Against(one_line(row.label), cells))
    return Matrix(score, [one_line(row.label) for row in rows[1:]], found)


def _difference(
    record: ComparisonRecord, pairs: dict[tuple[str, str], PairRecord], row: RowRecord, other: RowRecord
) -> Difference | None:
    pair = pairs.get((row.label, other.label)) or _flipped(record, pairs.get((other.label, row.label)))
    if pair is None:
        return None
    names = slugs(record)
    main = "" if pair.score == record.score else f"{list(record.score_info).index(pair.score)}-"
    return Difference(
        anchor=f"pair-{main}{names[row.label]}-{names[other.label]}",
        a=names[row.label],
        b=names[other.label],
        value=figure(pair.value, pair.ci95, signed=True) + _SUFFIX.get(pair.unit, ""),
        ends=interval(pair.value, pair.ci95, signed=True) if pair.ci95 else MISSING,
        verdict=_verdict(record, pair),
        adjusted=f"{pair.adjusted:.2g}" if pair.adjusted >= 0.001 else "below 0.001",
        apart=pair.apart,
    )


def _verdict(record: ComparisonRecord, pair: PairRecord) -> str:
    if not pair.apart:
        return "tie"
    higher = record.score_info[pair.score].higher_is_better
    if higher is None:
        return "higher" if pair.value > 0 else "lower"
    return "better" if (pair.value > 0) == higher else "worse"


def _flipped(record: ComparisonRecord, pair: PairRecord | None) -> PairRecord | None:
    """The pair with `b` minus `a`; on a ratio scale its % are of `a` then."""
    if pair is None:
        return None
    ratio = record.score_info[pair.score].ratio

    def flip(value: float) -> float:
        return -value / (1 + value / 100) if ratio else -value

    ends: Interval | None = (flip(pair.ci95[1]), flip(pair.ci95[0])) if pair.ci95 else None
    return pair.model_copy(update={"a": pair.b, "b": pair.a, "value": flip(pair.value), "ci95": ends})
