"""Quality against what it costs, and the rows for which a higher cost buys something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import SubElement

from markupsafe import Markup

from inlay.tuner.comparison.page.axes import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    Plot,
    linear,
    logarithmic,
    plot,
    short_count,
)
from inlay.tuner.comparison.page.costs import memory_unit, time_unit
from inlay.tuner.comparison.page.files import ComparisonFiles
from inlay.tuner.comparison.page.labels import Box, Label, along, place
from inlay.tuner.comparison.page.marks import draw_mark, marks
from inlay.tuner.comparison.page.quality import FAR, spread
from inlay.tuner.comparison.records import ComparisonRecord, EstimateRecord, PairRecord, RowRecord
from inlay.tuner.comparison.standing import stand
from inlay.tuner.report import drawing as draw
from inlay.tuner.report.drawing import tick_label
from inlay.tuner.report.scores import score_name
from inlay.tuner.report.text import one_line, shorten


@dataclass(frozen=True)
class Point:
    """A row: its cost in the unit of the figure with the least and the most of its seeds, and its score."""

    row: RowRecord
    cost: float
    ends: tuple[float, float]
    estimate: EstimateRecord


@dataclass(frozen=True)
class Tradeoff:
    """The points of one figure. `front`: labels of the rows that are worth their cost."""

    key: str
    name: str
    unit: str
    points: list[Point]
    front: list[str]

    @property
    def log(self) -> bool:
        """Whether costs differ by powers of ten."""
        return self.key == "parameters"

    @property
    def title(self) -> str:
        """The name with its unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def on_front(self) -> list[Point]:
        """The points of the front, the cheapest first."""
        return [point for label in self.front for point in self.points if point.row.label == label]


@dataclass(frozen=True)
class Panel:
    """A drawn figure; `unnamed` rows had no room for their name."""

    name: str
    front: list[str]
    unnamed: int
    picture: Markup


def tradeoffs(files: ComparisonFiles, score: str) -> list[Tradeoff]:
    """Score against trainable parameters, memory in training, and time in training; empty without measured costs."""
    rows = [row for row in stand(files.record, score).placed if row.cost]
    if not rows:
        return []
    byte, memory = memory_unit([row.cost.train_peak_bytes for row in rows])
    second, time = time_unit([row.cost.train_seconds for row in rows])
    trained = {row.label: [cell.record.train for cell in files.cells[row.label] if cell.record.train] for row in rows}

    def figure(key: str, name: str, unit: str, costs: list[list[float]]) -> Tradeoff:
        """`costs`: of each row, then of its seeds."""
        points = [
            Point(row, each[0], (min(each), max(each)), row.scores[score])
            for row, each in zip(rows, costs, strict=True)
            if each[0] > 0
        ]
        return Tradeoff(key, name, unit, points, front(files.record, score, points))

    sizes = [[float(row.cost.trainable_parameters)] for row in rows]
    peaks = [[row.cost.train_peak_bytes, *(seed.peak_bytes for seed in trained[row.label])] for row in rows]
    times = [[row.cost.train_seconds, *(seed.seconds for seed in trained[row.label])] for row in rows]
    found = [
        figure("parameters", "trainable parameters", "", sizes),
        figure("memory", "peak memory in training", memory, [[peak / byte for peak in each] for each in peaks]),
        figure("time", "training time", time, [[seconds / second for seconds in each] for each in times]),
    ]
    return [one for one in found if one.points]


def front(record: ComparisonRecord, score: str, points: Sequence[Point]) -> list[str]:
    """Labels of the rows that are worth their cost: the Pareto front of the means, without the rows that cannot be told
    apart from the one before them. The cheapest row is first; where no direction is better, there is no such line.
    """
    info = record.score_info.get(score)
    if info is None or info.higher_is_better is None:
        return []
    sign = 1 if info.higher_is_better else -1
    pairs = {frozenset((pair.a, pair.b)): pair for pair in record.pairs if pair.score == score}
    bases = [row for row in stand(record, score).untouched if row.kind == "base"]
    found: list[RowRecord] = []
    best = -math.inf
    for point in sorted(points, key=lambda point: (point.cost, -sign * point.estimate.value)):
        behind = sign * point.estimate.value <= best or any(
            _beats(pairs, base, point.row, score, sign) for base in bases
        )
        best = max(best, sign * point.estimate.value)
        if not behind and (not found or _beats(pairs, point.row, found[-1], score, sign)):
            found.append(point.row)
    return [row.label for row in found]


def _beats(pairs: dict[frozenset[str], PairRecord], row: RowRecord, other: RowRecord, score: str, sign: int) -> bool:
    pair = pairs.get(frozenset((row.label, other.label)))
    better = sign * (row.scores[score].value - other.scores[score].value) > 0
    return pair is not None and pair.apart and better


def axes(record: ComparisonRecord, found: Tradeoff, score: str) -> tuple[Axis, Axis]:
    """Cost across, score up; all points with their bars are inside, and the untouched base where it is not far away."""
    costs = [end for point in found.points for end in point.ends]
    values = [end for point in found.points for end in spread(point.estimate)]
    for row in stand(record, score).untouched:
        both = [*values, row.scores[score].value]
        if max(both) - min(both) <= FAR * (max(values) - min(values)):
            values = both
    return logarithmic(costs, 4) if found.log else linear(costs, 4, margin=0.12), linear(values, 5)


def draw_tradeoff(record: ComparisonRecord, found: Tradeoff, score: str) -> Panel:
    """The figure: reference lines first, then the front, bars, marks and names."""
    across, up = axes(record, found, score)
    said = "; ".join(
        f"{one_line(point.row.label)}: {tick_label(point.cost)}, {score_name(score)} {point.estimate.value:.4g}"
        for point in found.points
    )
    anchor = f"against-{found.key}-{list(record.score_info).index(score)}"
    title = f"{score_name(score)} against {found.name}"
    made = plot(anchor, title, said, across, up, x_title=found.title, x_tick=short_count if found.log else tick_label)
    lines = _draw_references(record, made, score)
    lines += along(_draw_front(made, found))
    lines += [box for point in found.points for box in _draw_bars(record, made, point)]
    for point in found.points:
        draw_mark(made.svg, marks(record)[point.row.label], made.x(point.cost), made.y(point.estimate.value))
    unnamed = _name_points(made, found, lines)
    return Panel(found.name, [one_line(label) for label in found.front], unnamed, draw.markup(made.svg))


def _draw_front(made: Plot, found: Tradeoff) -> list[tuple[float, float]]:
    """Draws the front, and returns its corners."""
    places = [(made.x(point.cost), made.y(point.estimate.value)) for point in found.on_front()]
    if len(places) > 1:
        SubElement(made.svg, "polyline", {"class": "front", "points": " ".join(f"{x:g},{y:g}" for x, y in places)})
    return places


def _draw_references(record: ComparisonRecord, made: Plot, score: str) -> list[Box]:
    """Draws a line across for each model that was not trained; returns where their names are."""
    boxes = []
    for row in stand(record, score).untouched:
        height = made.up.share(row.scores[score].value)
        if 0 <= height <= 1:
            y = made.y(row.scores[score].value)
            draw.line(made.svg, f"reference {row.kind}", LEFT, y, RIGHT, y)
            name = Label(shorten(one_line(row.label), 24), RIGHT, y - 5, "end")
            draw.text(made.svg, name.text, name.x, name.y, name.anchor)
            boxes.append(name.box)
    return boxes


def _draw_bars(record: ComparisonRecord, made: Plot, point: Point) -> list[Box]:
    """Both bars of a point; returns where they are."""
    kind = f"bar hue-{marks(record)[point.row.label].hue}"
    x, y = made.x(point.cost), made.y(point.estimate.value)
    boxes = []
    if point.estimate.ci95:
        low, high = (made.y(end) for end in point.estimate.ci95)
        draw.line(made.svg, kind, x, low, x, high)
        boxes.append((x - 1, high, x + 1, low))
    left, right = (made.x(end) for end in point.ends)
    if right - left > 1:
        draw.line(made.svg, kind, left, y, right, y)
        boxes.append((left, y - 1, right, y + 1))
    return boxes


def _name_points(made: Plot, found: Tradeoff, lines: Sequence[Box]) -> int:
    names = [one_line(point.row.label) for point in found.points]
    points = [(made.x(point.cost), made.y(point.estimate.value)) for point in found.points]
    labels = place(names, points, (LEFT, TOP - 8, RIGHT + 8, BOTTOM), lines)
    for label in labels:
        if label:
            draw.text(made.svg, label.text, label.x, label.y, label.anchor, "name")
    return labels.count(None)
