"""Figures as inline SVG: a curve over training steps, and two scores with their intervals on one axis.

Colours and line styles come from the page's style sheet, so that a figure follows light, dark and print. Every figure
has a title and a description; the same numbers stand in a table beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element, SubElement

from markupsafe import Markup

from inlay.tuner.records import ScoreRecord
from inlay.tuner.report import drawing as draw
from inlay.tuner.report.drawing import tick_label
from inlay.tuner.report.figures import figure, interval

_WIDTH, _HEIGHT = 420, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 408, 14, 208

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points `(step, value)` in order of steps. `marked` series are dashed and show each point."""

    name: str
    points: Sequence[Point]
    style: Literal["line", "marked"] = "line"


def curve(anchor: str, title: str, unit: str, series: Sequence[Series]) -> Markup:
    """A line chart over training steps. `series` hold at least one point together."""
    points = [point for one in series for point in one.points]
    steps, values = [point[0] for point in points], [point[1] for point in points]
    marks = draw.ticks(min(values), max(values), 4, around=True)
    across = draw.Scale(min(steps), max(steps), _LEFT, _RIGHT)
    up = draw.Scale(marks[0], marks[-1], _BOTTOM, _TOP)
    ends = "; ".join(
        f"{one.name} from {tick_label(one.points[0][1])} to {tick_label(one.points[-1][1])}" for one in series
    )
    about = f"{unit or title} over {tick_label(min(steps))} to {tick_label(max(steps))} training steps: {ends}"
    svg = draw.figure(anchor, title, about, _WIDTH, _HEIGHT, "curve")
    for mark in marks:
        draw.line(svg, "grid", _LEFT, up(mark), _RIGHT, up(mark))
        draw.text(svg, tick_label(mark), _LEFT - 8, up(mark) + 4, "end")
    for mark in draw.ticks(min(steps), max(steps), 4):
        if mark == int(mark):
            draw.text(svg, tick_label(mark), across(mark), _BOTTOM + 18, "middle")
    draw.line(svg, "axis", _LEFT, _BOTTOM, _RIGHT, _BOTTOM)
    for one in series:
        _draw_series(svg, one, across, up)
    if len(series) > 1:
        _name_ends(svg, series, across, up)
    return draw.markup(svg)


def _draw_series(svg: Element, series: Series, across: draw.Scale, up: draw.Scale) -> None:
    places = [(across(step), up(value)) for step, value in series.points]
    SubElement(svg, "polyline", {"class": series.style, "points": " ".join(f"{x:g},{y:g}" for x, y in places)})
    if series.style == "marked" or len(places) == 1:
        for x, y in places:
            draw.diamond(svg, x, y)


def _name_ends(svg: Element, series: Sequence[Series], across: draw.Scale, up: draw.Scale) -> None:
    """Writes each name at the end of its line: the highest line's above it, the others' below."""
    highest = max(series, key=lambda one: one.points[-1][1])
    for one in series:
        step, value = one.points[-1]
        draw.text(svg, one.name, across(step), up(value) + (-10 if one is highest else 20), "end", "name")


def whiskers(anchor: str, name: str, base: ScoreRecord | None, tuned: ScoreRecord | None) -> Markup:
    """Base above, tuned below, each a bar over its 95 % interval and a mark at its value, on one axis."""
    known = [(who, score) for who, score in (("base", base), ("tuned", tuned)) if score]
    ends = [end for _, score in known for end in (score.value, *(score.ci95 or ()))]
    margin = (max(ends) - min(ends)) * 0.06
    across = draw.Scale(min(ends) - margin, max(ends) + margin, 8, 172)
    about = "; ".join(f"{who} {_score(score)}" for who, score in known)
    svg = draw.figure(anchor, f"{name}, base and tuned", about, 180, 46, "whiskers")
    draw.line(svg, "axis", 8, 32, 172, 32)
    for mark in draw.ticks(across.low, across.high, 4):
        draw.line(svg, "axis", across(mark), 32, across(mark), 35)
        draw.text(svg, tick_label(mark), across(mark), 45, "middle")
    for who, score in known:
        _whisker(svg, who, score, across, 9 if who == "base" else 22)
    return draw.markup(svg)


def _whisker(svg: Element, who: str, score: ScoreRecord, across: draw.Scale, y: int) -> None:
    group = SubElement(svg, "g", {"class": who})
    if score.ci95:
        low, high = (across(end) for end in score.ci95)
        draw.line(group, "bar", low, y, high, y)
        for end in (low, high):
            draw.line(group, "end", end, y - 3, end, y + 3)
    if who == "base":
        SubElement(group, "circle", {"class": "dot", "cx": f"{across(score.value):g}", "cy": str(y), "r": "4"})
    else:
        draw.diamond(group, across(score.value), y)


def _score(score: ScoreRecord) -> str:
    text = f"{figure(score.value, score.ci95)} {score.unit}"
    return f"{text}, 95 % interval {interval(score.value, score.ci95)}" if score.ci95 else text
