"""The search for a learning rate, one panel a row: what was tried, what it reached on validation rows, what won."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import SubElement

from markupsafe import Markup

from inlay.tuner.comparison.page.axes import BOTTOM, Plot, linear, logarithmic, plot, power
from inlay.tuner.comparison.page.marks import Mark, draw_cross, draw_mark, draw_ring, draw_seed, marks
from inlay.tuner.comparison.records import ComparisonRecord, RowRecord, TrialRecord
from inlay.tuner.report import drawing as draw
from inlay.tuner.report.figures import MISSING, count
from inlay.tuner.report.text import one_line

RATE = "train.learning_rate"


@dataclass(frozen=True)
class TrialLine:
    """One trial as the table shows it."""

    values: str
    objective: str
    step: str
    fate: str


@dataclass(frozen=True)
class Search:
    """The search of a row; `edge` is a warning, empty where the best value has neighbours on both sides."""

    label: str
    picture: Markup | None
    edge: str
    trials: list[TrialLine]


def searches(record: ComparisonRecord) -> list[Search]:
    """One for each row that was searched, all with the same axes."""
    rows = [row for row in record.rows if row.trials]
    points = [point for row in rows for trial in row.trials if (point := _point(trial))]
    rates = [rate for row in rows for trial in row.trials if (rate := _rate(trial))]
    return [
        Search(
            one_line(row.label),
            _picture(record, row, rates, [value for _, value in points]) if points else None,
            _edge(row),
            [_line(row, trial) for trial in row.trials],
        )
        for row in rows
    ]


def _rate(trial: TrialRecord) -> float | None:
    value = trial.values.get(RATE)
    return float(value) if isinstance(value, (int, float)) and value > 0 else None


def _point(trial: TrialRecord) -> tuple[float, float] | None:
    rate = _rate(trial)
    return (rate, trial.objective) if rate is not None and trial.objective is not None else None


def _chosen(row: RowRecord, trial: TrialRecord) -> bool:
    return bool(row.chosen) and trial.values == row.chosen and trial.objective is not None


def _picture(record: ComparisonRecord, row: RowRecord, rates: Sequence[float], objectives: Sequence[float]) -> Markup:
    mark = marks(record)[row.label]
    said = "; ".join(f"{_values(trial)}: {_objective(trial)}, {_fate(row, trial)}" for trial in row.trials)
    anchor = f"search-{record.rows.index(row)}"
    made = plot(
        anchor,
        f"{one_line(row.label)}, search",
        said,
        logarithmic(rates, 4),
        linear(objectives, 5, margin=0.14),
        x_title="learning rate",
        x_tick=power,
    )
    finished = sorted(point for trial in row.trials if not trial.stopped and (point := _point(trial)))
    places = " ".join(f"{made.x(rate):g},{made.y(value):g}" for rate, value in finished)
    if len({rate for rate, _ in finished}) == len(finished) > 1:  # a line only where one rate has one objective
        SubElement(made.svg, "polyline", {"class": f"thin hue-{mark.hue}", "points": places})
    for trial in row.trials:
        _draw_trial(made, row, trial, mark)
    return draw.markup(made.svg)


def _draw_trial(made: Plot, row: RowRecord, trial: TrialRecord, mark: Mark) -> None:
    rate, point = _rate(trial), _point(trial)
    if rate is None:
        return
    if point is None:
        draw_cross(made.svg, made.x(rate), BOTTOM - 8)
        return
    x, y = made.x(point[0]), made.y(point[1])
    if trial.stopped:
        draw_seed(made.svg, mark, x, y)
    else:
        draw_mark(made.svg, mark, x, y)
    if _chosen(row, trial):
        draw_ring(made.svg, x, y)


def _edge(row: RowRecord) -> str:
    if not row.at_edge:
        return ""
    names = " and ".join(one_line(name).rpartition(".")[2].replace("_", " ") for name in row.at_edge)
    return f"The best {names} is at the edge of what was tried: a wider grid may find a better one."


def _values(trial: TrialRecord) -> str:
    return ", ".join(f"{one_line(name)} {_value(value)}" for name, value in trial.values.items())


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else one_line(str(value))


def _objective(trial: TrialRecord) -> str:
    return MISSING if trial.objective is None else f"{trial.objective:.5g}"


def _fate(row: RowRecord, trial: TrialRecord) -> str:
    if trial.objective is None:
        return f"failed: {one_line(trial.reason)}"
    return "chosen" if _chosen(row, trial) else f"stopped: {one_line(trial.reason) or 'poor'}" if trial.stopped else ""


def _line(row: RowRecord, trial: TrialRecord) -> TrialLine:
    return TrialLine(_values(trial), _objective(trial), count(trial.step), _fate(row, trial))
