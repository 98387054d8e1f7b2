"""Figures as inline SVG: a curve over training steps, and two scores with their intervals on one axis.

Colours and line styles come from the page's style sheet, so that a figure follows light, dark and print. Every figure
has a title and a description; the same numbers stand in a table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from inlay.tuner.records import ScoreRecord
from inlay.tuner.report.figures import figure, interval
from inlay.tuner.report.text import visible

_WIDTH, _HEIGHT = 420, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 408, 14, 208

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points `(step, value)` in order of steps. `marked` series are dashed and show each point."""

    name: str
    points: Sequence[Point]
    style: Literal["line", "marked"] = "line"


@dataclass(frozen=True)
class Scale:
    """A linear map of `low..high` to `start..end` in the figure's own units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 2)


def curve(anchor: str, title: str, unit: str, series: Sequence[Series]) -> Markup:
    """A line chart over training steps. `series` hold at least one point together."""
    points = [point for one in series for point in one.points]
    steps, values = [point[0] for point in points], [point[1] for point in points]
    marks = ticks(min(values), max(values), 4, around=True)
    across = Scale(min(steps), max(steps), _LEFT, _RIGHT)
    up = Scale(marks[0], marks[-1], _BOTTOM, _TOP)
    ends = "; ".join(f"{one.name} from {_label(one.points[0][1])} to {_label(one.points[-1][1])}" for one in series)
    about = f"{unit or title} over {_label(min(steps))} to {_label(max(steps))} training steps: {ends}"
    svg = _figure(anchor, title, about, _WIDTH, _HEIGHT, "curve")
    for mark in marks:
        _line(svg, "grid", _LEFT, up(mark), _RIGHT, up(mark))
        _text(svg, _label(mark), _LEFT - 8, up(mark) + 4, "end")
    for mark in ticks(min(steps), max(steps), 4):
        if mark == int(mark):
            _text(svg, _label(mark), across(mark), _BOTTOM + 18, "middle")
    _line(svg, "axis", _LEFT, _BOTTOM, _RIGHT, _BOTTOM)
    for one in series:
        _draw(svg, one, across, up)
    if len(series) > 1:
        _name_ends(svg, series, across, up)
    return _markup(svg)


def _draw(svg: Element, series: Series, across: Scale, up: Scale) -> None:
    places = [(across(step), up(value)) for step, value in series.points]
    SubElement(svg, "polyline", {"class": series.style, "points": " ".join(f"{x:g},{y:g}" for x, y in places)})
    if series.style == "marked" or len(places) == 1:
        for x, y in places:
            _diamond(svg, x, y)


def _name_ends(svg: Element, series: Sequence[Series], across: Scale, up: Scale) -> None:
    """Writes each name at the end of its line: the highest line's above it, the others' below."""
    highest = max(series, key=lambda one: one.points[-1][1])
    for one in series:
        step, value = one.points[-1]
        _text(svg, one.name, across(step), up(value) + (-10 if one is highest else 20), "end", "name")


def whiskers(anchor: str, name: str, base: ScoreRecord | None, tuned: ScoreRecord | None) -> Markup:
    """Base above, tuned below, each a bar over its 95 % interval and a mark at its value, on one axis."""
    known = [(who, score) for who, score in (("base", base), ("tuned", tuned)) if score]
    ends = [end for _, score in known for end in (score.value, *(score.ci95 or ()))]
    margin = (max(ends) - min(ends)) * 0.06
    across = Scale(min(ends) - margin, max(ends) + margin, 8, 172)
    about = "; ".join(f"{who} {_score(score)}" for who, score in known)
    svg = _figure(anchor, f"{name}, base and tuned", about, 180, 46, "whiskers")
    _line(svg, "axis", 8, 32, 172, 32)
    for mark in ticks(across.low, across.high, 4):
        _line(svg, "axis", across(mark), 32, across(mark), 35)
        _text(svg, _label(mark), across(mark), 45, "middle")
    for who, score in known:
        _whisker(svg, who, score, across, 9 if who == "base" else 22)
    return _markup(svg)


def _whisker(svg: Element, who: str, score: ScoreRecord, across: Scale, y: int) -> None:
    group = SubElement(svg, "g", {"class": who})
    if score.ci95:
        low, high = (across(end) for end in score.ci95)
        _line(group, "bar", low, y, high, y)
        for end in (low, high):
            _line(group, "end", end, y - 3, end, y + 3)
    if who == "base":
        SubElement(group, "circle", {"class": "dot", "cx": f"{across(score.value):g}", "cy": str(y), "r": "4"})
    else:
        _diamond(group, across(score.value), y)


def _score(score: ScoreRecord) -> str:
    text = f"{figure(score.value, score.ci95)} {score.unit}"
    return f"{text}, 95 % interval {interval(score.value, score.ci95)}" if score.ci95 else text


def ticks(low: float, high: float, number: int, *, around: bool = False) -> list[float]:
    """About `number` round values, 1, 2 or 5 times a power of ten apart: within low..high, or `around` all of it."""
    if not high > low:
        return [low]
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = low / step, high / step
    bounds = (math.floor(first), math.ceil(last)) if around else (math.ceil(first), math.floor(last))
    return [float(f"{index * step:.12g}") for index in range(bounds[0], bounds[1] + 1)]


def _label(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}" if value != int(value) else str(int(value))


def _figure(anchor: str, title: str, about: str, width: int, height: int, kind: str) -> Element:
    names = {"role": "img", "aria-labelledby": f"{anchor}-title {anchor}-desc", "class": kind}
    svg = Element("svg", {"viewBox": f"0 0 {width} {height}", **names})
    SubElement(svg, "title", {"id": f"{anchor}-title"}).text = visible(title)
    SubElement(svg, "desc", {"id": f"{anchor}-desc"}).text = visible(about)
    return svg


def _line(parent: Element, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
    places = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    SubElement(parent, "line", {"class": kind, **{name: f"{place:g}" for name, place in places.items()}})


def _text(parent: Element, text: str, x: float, y: float, anchor: str, kind: str = "tick") -> None:
    places = {"x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor}
    SubElement(parent, "text", {"class": kind, **places}).text = visible(text)


def _diamond(parent: Element, x: float, y: float) -> None:
    SubElement(parent, "path", {"class": "dot", "d": f"M{x:g} {y - 5:g}l5 5l-5 5l-5 -5z"})


def _markup(svg: Element) -> Markup:
    return Markup(tostring(svg, encoding="unicode", short_empty_elements=False))  # escaped by the serializer
