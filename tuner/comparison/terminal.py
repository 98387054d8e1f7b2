"""The comparison in the terminal: groups and intervals, no ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inlay.tuner.comparison.page.costs import memory_unit, time_unit
from inlay.tuner.comparison.records import ComparisonRecord, EstimateRecord, RowRecord
from inlay.tuner.comparison.standing import breaks, detectable, mean_and_interval, stand, state
from inlay.tuner.report.drawing import ticks
from inlay.tuner.report.figures import MISSING, counted, plain
from inlay.tuner.report.scores import score_name
from inlay.tuner.report.text import columns, one_line, pad, shorten, wrap

_GAP = "  "
_SHORTEST_NAME, _LONGEST_NAME = 12, 24
_SHORTEST_PLOT, _LONGEST_PLOT = 8, 28
_INDENT = 8


def table(record: ComparisonRecord, folder: Path, width: int = 80) -> str:
    """The comparison in at most `width` columns (60 or more); only the path of the page may be longer.

    Every text from data is made visible first: no control or direction character of it reaches the terminal.
    """
    parts = [_title(record, width), _rows(record, width), _finding(record, width), _next(folder)]
    return "\n\n".join(part for part in parts if part)


def _title(record: ComparisonRecord, width: int) -> str:
    facts = [
        score_name(record.score),
        f"{counted(record.examples, 'row')} of {one_line(record.split)}",
        counted(len(record.seeds), "seed"),
    ]
    lines = [*wrap(one_line(record.heading), width), "", *wrap(", ".join(facts), width)]
    if record.status != "complete":
        lines += wrap(": ".join(filter(None, [record.status, one_line(record.reason)])), width)
    return "\n".join(lines)


@dataclass(frozen=True)
class _Line:
    """A row: its cells as printed, and what is drawn behind them."""

    cells: list[str]
    estimate: EstimateRecord
    rule: bool


def _rows(record: ComparisonRecord, width: int) -> str:
    """The table: rows by mean with an empty line between groups, references, and the rows without a place."""
    standing = stand(record, record.score)
    apart = breaks(standing.ranked, record.score)
    found = _lines(record, standing.ranked, apart) + _lines(record, standing.references, set())
    seconds, sizes = _costs(record)
    heads = [
        ["", "", "", "", "train", "adapter"],
        ["", "mean", "95 % interval", "group", time_unit(seconds)[1], memory_unit(sizes)[1]],
    ]
    if not seconds:  # then the columns of costs are empty
        heads = [head[:4] for head in heads[1:]]
    cells = [*heads, *(line.cells[: len(heads[0])] for line in found)]
    widths = [max(columns(row[column]) for row in cells) for column in range(len(heads[0]))]
    longest = max(columns(one_line(row.label)) for row in record.rows)
    widths[0] = min(max(longest, _SHORTEST_NAME), _LONGEST_NAME)
    room = width - sum(widths) - len(_GAP) * len(widths)
    widths[0] = max(widths[0] + min(room - _SHORTEST_PLOT, 0), _SHORTEST_NAME)
    others = _others(standing.others, widths[0], width)
    if not found:
        return others
    bases = [row.scores[record.score].value for row in standing.references if row.kind == "base"]
    plot = _Plot([line.estimate for line in found], bases, min(max(room, _SHORTEST_PLOT), _LONGEST_PLOT))
    printed = [_row(head, widths).rstrip() for head in heads]
    printed[-1] = _GAP.join([_row(heads[-1], widths), plot.head()]).rstrip()
    for line in found:
        printed += [""] if line.rule else []
        printed.append(_GAP.join([_row(line.cells[: len(widths)], widths), plot.draw(line.estimate)]).rstrip())
    return "\n".join(filter(None, ["\n".join(printed), others and f"\n{others}"]))


def _others(rows: Sequence[RowRecord], name: int, width: int) -> str:
    """Rows without a place, the reason beside the label."""
    lines = []
    for row in rows:
        reason = wrap(state(row), width - name - len(_GAP))
        labels = [shorten(one_line(row.label), name), *[""] * (len(reason) - 1)]
        lines += [pad(label, name) + _GAP + part for label, part in zip(labels, reason, strict=True)]
    return "\n".join(lines)


def _costs(record: ComparisonRecord) -> tuple[list[float], list[float]]:
    known = [row.cost for row in record.rows if row.cost]
    return [cost.train_seconds for cost in known], [cost.adapter_bytes for cost in known]


def _lines(record: ComparisonRecord, rows: Sequence[RowRecord], apart: set[str]) -> list[_Line]:
    seconds, sizes = _costs(record)
    second, byte = time_unit(seconds)[0], memory_unit(sizes)[0]
    found = []
    for row in rows:
        estimate = row.scores[record.score]
        cost = [MISSING] * 2
        if row.cost:
            cost = [plain(row.cost.train_seconds / second), plain(row.cost.adapter_bytes / byte)]
        reference = row is rows[0] and row.kind != "method"
        cells = [one_line(row.label), *mean_and_interval(estimate), estimate.group or MISSING, *cost]
        found.append(_Line(cells, estimate, row.label in apart or reference))
    return found


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    """The name and the group stand left, figures stand right."""
    return _GAP.join(
        pad(shorten(cell, limit), limit, right=column not in (0, 3))
        for column, (cell, limit) in enumerate(zip(cells, widths, strict=True))
    )


class _Plot:
    """Dots and whiskers in text, on one axis from the lowest to the highest end; a dot where the base is."""

    def __init__(self, estimates: Sequence[EstimateRecord], bases: Sequence[float], width: int) -> None:
        self.bases = bases
        ends = [end for one in estimates for end in (one.value, *(one.ci95 or ()))]
        self.low, self.high, self.width = min(ends), max(ends), width

    def head(self) -> str:
        """The round numbers nearest to both ends, each over its place."""
        line = ""
        inside = ticks(self.low, self.high, 3)
        for tick in (inside[:1] + inside[-1:]) if len(inside) > 1 else inside:
            start = min(max(self._place(tick) - len(f"{tick:g}") // 2, 0), self.width - len(f"{tick:g}"))
            if start >= len(line) + bool(line):
                line = line.ljust(start) + f"{tick:g}"
        return line

    def draw(self, estimate: EstimateRecord) -> str:
        """`--o--`: the interval and the mean."""
        cells = [" "] * self.width
        for base in self.bases:
            cells[self._place(base)] = "."
        if estimate.ci95:
            low, high = (self._place(end) for end in estimate.ci95)
            cells[low : high + 1] = "-" * (high + 1 - low)
        cells[self._place(estimate.value)] = "o"
        return "".join(cells)

    def _place(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(min(max(share, 0.0), 1.0) * (self.width - 1))


def _finding(record: ComparisonRecord, width: int) -> str:
    said = [*(one_line(sentence) for sentence in record.sentences), detectable(record)]
    return "\n".join(line for sentence in said if sentence for line in wrap(sentence, width))


def _next(folder: Path) -> str:
    shown = one_line(str(folder))
    return "\n".join([
        pad("page", _INDENT) + f"{shown}/comparison.html",
        pad("copy", _INDENT) + "comparison.md, comparison.tex, comparison.csv and figures/ beside it",
    ])  # fmt: skip
