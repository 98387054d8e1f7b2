"""The quality figure: a table whose cells are drawn. Each row has its interval, its mean and every seed on one axis.

Horizontal places are shares of the cell's width, so that the figure fits a phone and a poster with letters of one size.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from markupsafe import Markup

from inlay.tuner.comparison.page.axes import Axis, linear
from inlay.tuner.comparison.page.marks import Mark, draw_mark, draw_seed, marks
from inlay.tuner.comparison.records import ComparisonRecord, EstimateRecord, RowRecord
from inlay.tuner.comparison.standing import Standing, breaks, mean_and_interval, reference, stand
from inlay.tuner.report import drawing as draw
from inlay.tuner.report.figures import MISSING, counted
from inlay.tuner.report.scores import score_name
from inlay.tuner.report.text import one_line

_BAR, _SEEDS = -7, 9  # above and below the middle of a cell
_ASIDE = (0, 4, -4, 8)  # of seeds at one place
FAR = 8  # a base that would widen the axis more than so many times is named at its edge instead


@dataclass(frozen=True)
class Line:
    """One row of the figure; `rule`: it shares no group with the row above."""

    label: str
    about: str
    picture: Markup
    mean: str
    ends: str
    group: str
    rule: bool
    note: str


@dataclass(frozen=True)
class Quality:
    """The figure of one score. `outside` says where a reference lies that the axis does not reach."""

    key: str
    name: str
    unit: str
    direction: str
    axis: Markup
    lines: list[Line]
    references: list[Line]
    outside: str


def draw_quality(record: ComparisonRecord, score: str) -> Quality:
    """The figure of `score`."""
    standing = stand(record, score)
    across, outside = _axis(standing, score)
    info = record.score_info.get(score)
    drawing = _Drawing(record, score, across, standing)
    apart = breaks(standing.ranked, score)
    return Quality(
        key=score,
        name=score_name(score),
        unit=one_line(info.unit) if info else "",
        direction={True: "higher is better", False: "lower is better"}.get(info.higher_is_better, "") if info else "",
        axis=drawing.axis(),
        lines=[drawing.line(row, row.label in apart) for row in standing.ranked],
        references=[drawing.line(row, False) for row in standing.references],
        outside=outside,
    )


def _axis(standing: Standing, score: str) -> tuple[Axis | None, str]:
    """The axis that holds the rows, and the references where they are not far away; and which are."""
    trained = [row for row in standing.placed if row not in standing.untouched]
    ends = [end for row in trained for end in spread(row.scores[score])]
    far = []
    for row in standing.untouched:
        both = ends + spread(row.scores[score])
        if not ends or max(both) - min(both) <= FAR * (max(ends) - min(ends)):
            ends = both
        else:
            far.append(f"{one_line(row.label)} ({mean_and_interval(row.scores[score])[0]})")
    lies = "lies" if len(far) == 1 else "lie"
    outside = f"{' and '.join(far)} {lies} outside the axis." if far else ""
    return (linear(ends, 6) if ends else None), outside


def axis_of(standing: Standing, score: str) -> Axis:
    """The axis of the figure of a score that at least one row has."""
    across, _ = _axis(standing, score)
    assert across is not None
    return across


def spread(estimate: EstimateRecord) -> list[float]:
    """Every number of an estimate that a figure shows."""
    return [estimate.value, *estimate.seeds, *(estimate.ci95 or ())]


@dataclass(frozen=True)
class _Drawing:
    record: ComparisonRecord
    score: str
    across: Axis | None
    standing: Standing

    def axis(self) -> Markup:
        """The ticks, for the head of the figure; its numbers are said by the rows, so it is no picture of its own."""
        svg = Element("svg", {"class": "axis-row", "aria-hidden": "true"})
        if self.across:
            for tick in self.across.ticks:
                draw.text(svg, draw.tick_label(tick), self._x(tick), 14, "middle")
        return draw.markup(svg)

    def line(self, row: RowRecord, rule: bool) -> Line:
        estimate = row.scores[self.score]
        mean, ends = mean_and_interval(estimate)
        return Line(
            label=one_line(row.label),
            about=reference(row) or _title(row),
            picture=self._picture(row, estimate, marks(self.record)[row.label]),
            mean=mean,
            ends=ends,
            group=estimate.group or MISSING,
            rule=rule,
            note=one_line(estimate.note),
        )

    def _picture(self, row: RowRecord, estimate: EstimateRecord, mark: Mark) -> Markup:
        mean, ends = mean_and_interval(estimate)
        said = f"mean {mean}" + (f", 95 % interval {ends}" if estimate.ci95 else ", no interval")
        if len(estimate.seeds) > 1:
            said += f", {counted(len(estimate.seeds), 'seed')}: " + ", ".join(f"{seed:.4g}" for seed in estimate.seeds)
        anchor = f"quality-{self.record.rows.index(row)}-{list(self.record.score_info).index(self.score)}"
        svg = draw.figure(anchor, f"{one_line(row.label)}, {score_name(self.score)}", said, 0, 0, "row")
        del svg.attrib["viewBox"]  # as wide as its cell
        if self.across:
            self._ground(svg)
            self._estimate(SubElement(svg, "svg", {"y": "50%"}), estimate, mark)
        return draw.markup(svg)

    def _ground(self, svg: Element) -> None:
        for tick in self.across.ticks:
            draw.line(svg, "grid", self._x(tick), 0, self._x(tick), "100%")
        for row in self.standing.untouched:
            known = row.scores[self.score]
            if not 0 <= self.across.share(known.value) <= 1:
                continue
            if known.ci95 and row.kind == "base":
                low, high = (self.across.share(end) for end in known.ci95)
                place = {"x": f"{100 * low:.2f}%", "width": f"{100 * (high - low):.2f}%", "y": "0", "height": "100%"}
                SubElement(svg, "rect", {"class": "band", **place})
            draw.line(svg, f"reference {row.kind}", self._x(known.value), 0, self._x(known.value), "100%")

    def _estimate(self, svg: Element, estimate: EstimateRecord, mark: Mark) -> None:
        if not 0 <= self.across.share(estimate.value) <= 1:
            return
        hue = f"hue-{mark.hue}"
        if estimate.ci95:
            low, high = (self._x(end) for end in estimate.ci95)
            draw.line(svg, f"bar {hue}", low, _BAR, high, _BAR)
            for end in (low, high):
                draw.line(svg, f"end {hue}", end, _BAR - 4, end, _BAR + 4)
        if len(estimate.seeds) > 1:
            self._seeds(svg, estimate, mark)
        draw_mark(svg, mark, self._x(estimate.value), _BAR)

    def _seeds(self, svg: Element, estimate: EstimateRecord, mark: Mark) -> None:
        """Every seed is seen: those at the same place stand a little above and below each other."""
        there: Counter[int] = Counter()
        for seed in estimate.seeds:
            place = round(100 * self.across.share(seed))
            draw_seed(svg, mark, self._x(seed), _SEEDS + _ASIDE[there[place] % len(_ASIDE)])
            there[place] += 1

    def _x(self, value: float) -> str:
        return f"{100 * self.across.share(value):.2f}%" if self.across else "50%"


def _title(row: RowRecord) -> str:
    """The method's usual name, where the label does not say it."""
    known = one_line(row.title or row.method)
    return "" if known.lower() in row.label.lower() else known
