"""Learning curves, one panel a row with the same axes: the mean over seeds, and a band from the least to the most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from xml.etree.ElementTree import SubElement

from markupsafe import Markup

from inlay.tuner.comparison.page.axes import Plot, linear, plot
from inlay.tuner.comparison.page.files import ComparisonFiles
from inlay.tuner.comparison.page.marks import Mark, draw_seed, marks
from inlay.tuner.comparison.records import ComparisonRecord, RowRecord
from inlay.tuner.records import TrainRow
from inlay.tuner.report import drawing as draw
from inlay.tuner.report.figures import counted
from inlay.tuner.report.replies import spread
from inlay.tuner.report.text import one_line

_STEPS_SHOWN = 200
_POINTS_MARKED = 4  # fewer make no line to speak of


@dataclass(frozen=True)
class Across:
    """A value at a step: mean, least and most over the seeds."""

    step: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The curves of a row: losses in nats per trained token, `validation` empty where there was none."""

    row: RowRecord
    training: list[Across]
    validation: list[Across]


@dataclass(frozen=True)
class Panel:
    """A drawn figure, and its two ends in words."""

    label: str
    about: str
    picture: Markup


def panels(files: ComparisonFiles) -> list[Panel]:
    """One for each row that logged its training, in the order of the record."""
    curves = [curve for row in files.record.rows if (curve := _curve(files, row)).training]
    points = [point for curve in curves for point in (*curve.training, *curve.validation)]
    return [_panel(files.record, curve, points) for curve in curves]


def _curve(files: ComparisonFiles, row: RowRecord) -> Curve:
    logs = [cell.steps for cell in files.cells.get(row.label, []) if cell.steps]
    training = _over_seeds([{step.step: step.loss for step in log} for log in logs])
    return Curve(row, _thinned(training), _over_seeds([_validation(log) for log in logs]))


def _validation(log: Sequence[TrainRow]) -> dict[int, float]:
    return {step.step: step.validation["loss"] for step in log if "loss" in step.validation}


def _over_seeds(logs: Sequence[dict[int, float]]) -> list[Across]:
    """Steps that every seed has: where one stopped early, the band ends with it."""
    if not logs:
        return []
    shared = sorted(set.intersection(*(set(log) for log in logs)))
    found = [(step, [log[step] for log in logs]) for step in shared]
    return [Across(step, fmean(values), min(values), max(values)) for step, values in found]


def _thinned(points: list[Across]) -> list[Across]:
    kept = spread(points, _STEPS_SHOWN)
    return [*kept, *(point for point in points[-1:] if point not in kept)]


def _panel(record: ComparisonRecord, curve: Curve, points: Sequence[Across]) -> Panel:
    mark = marks(record)[curve.row.label]
    first, last = curve.training[0], curve.training[-1]
    about = f"{first.mean:.3g} at step {first.step:,} to {last.mean:.3g} at step {last.step:,}"
    if curve.validation:
        about += f"; validation {curve.validation[-1].mean:.3g} at the end"
    made = plot(
        f"curve-{record.rows.index(curve.row)}",
        f"{one_line(curve.row.label)}, loss by step",
        f"mean over {counted(len(curve.row.seeds), 'seed')}: {about}",
        linear([point.step for point in points], 4, margin=0),
        linear([end for point in points for end in (point.low, point.high)], 4),
        x_title="step",
    )
    _draw(made, curve.training, mark, "thin")
    _draw(made, curve.validation, mark, "thin marked")
    return Panel(one_line(curve.row.label), about, draw.markup(made.svg))


def _draw(made: Plot, points: Sequence[Across], mark: Mark, kind: str) -> None:
    if not points:
        return
    there = [f"{made.x(point.step):g},{made.y(point.high):g}" for point in points]
    back = [f"{made.x(point.step):g},{made.y(point.low):g}" for point in reversed(points)]
    SubElement(made.svg, "polygon", {"class": f"band hue-{mark.hue}", "points": " ".join(there + back)})
    middle = " ".join(f"{made.x(point.step):g},{made.y(point.mean):g}" for point in points)
    SubElement(made.svg, "polyline", {"class": f"{kind} hue-{mark.hue}", "points": middle})
    for point in points if len(points) <= _POINTS_MARKED else []:
        draw_seed(made.svg, mark, made.x(point.step), made.y(point.mean))
