"""The figures as files for a paper: SVG, and PNG at 300 dots per inch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inlay.tuner.comparison.page.axes import short_count
from inlay.tuner.comparison.page.files import ComparisonFiles
from inlay.tuner.comparison.page.labels import along, place
from inlay.tuner.comparison.page.marks import BASE_HUE, SHAPES, Mark, marks
from inlay.tuner.comparison.page.quality import axis_of
from inlay.tuner.comparison.page.tradeoff import Tradeoff, axes, tradeoffs
from inlay.tuner.comparison.records import ComparisonRecord, RowRecord
from inlay.tuner.comparison.standing import stand
from inlay.tuner.report.drawing import tick_label
from inlay.tuner.report.scores import score_name
from inlay.tuner.report.text import one_line, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS = 300
_UNITS = 100  # units of a figure per inch, in which labels are placed
_LONGEST = 36
# Faces for scripts that matplotlib's own lacks, in the order of preference; those that are installed are used.
_FURTHER = ("Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "Noto Sans Arabic", "Noto Sans Hebrew")
_SETTINGS = {
    "svg.hashsalt": "inlay",
    "svg.fonttype": "none",
    "text.usetex": False,
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": BASE_HUE,
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "text.color": "#1b1f24",
    "axes.labelcolor": "#57606a",
}


def draw_figures(files: ComparisonFiles) -> dict[str, bytes]:
    """File contents by name: the quality of the main score, and the same against each cost; none without a row.

    The same files give the same bytes on one machine: nothing in them tells a time, and no name is drawn by chance.
    """
    import matplotlib as mpl

    record = files.record
    if not stand(record, record.score).ranked:
        return {}
    found: dict[str, bytes] = {}
    with mpl.rc_context({**_SETTINGS, "font.family": _families()}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as a box where no face has it
        found |= _written("quality", _quality(record))
        for one in tradeoffs(files, record.score):
            found |= _written(f"against-{one.key}", _against(record, one))
    return found


def _families() -> list[str]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FURTHER if name in installed)]


def _written(name: str, figure: Figure) -> dict[str, bytes]:
    found = {}
    for suffix, nothing in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        file = io.BytesIO()
        figure.savefig(file, format=suffix, dpi=_DOTS, metadata=nothing)
        found[f"{name}.{suffix}"] = file.getvalue()
    return found


def _canvas(width: float, height: float, margins: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """A figure in inches, with margins in inches: left, bottom, right, top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    left, bottom, right, top = margins
    inner = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    made = figure.add_axes(inner)
    made.grid(color="#d5d9de", linewidth=0.6)
    made.set_axisbelow(True)
    made.tick_params(length=0)
    return figure, made


def _quality(record: ComparisonRecord) -> Figure:
    """Interval, mean and seeds of each row, best row on top."""
    standing = stand(record, record.score)
    across = axis_of(standing, record.score)
    rows = [row for row in standing.placed if 0 <= across.share(row.scores[record.score].value) <= 1]
    names = [shorten(one_line(row.label), _LONGEST) for row in rows]
    left = 0.25 + 0.075 * max(len(name) for name in names)
    figure, made = _canvas(left + 4.6, 0.36 * len(rows) + 0.65, (left, 0.5, 0.45, 0.15))
    made.set_xlim(across.low, across.high)
    made.set_ylim(len(rows) - 0.5, -0.5)
    made.set_xticks(across.ticks, [tick_label(tick) for tick in across.ticks])
    made.set_yticks(range(len(rows)), names, parse_math=False, color="#1b1f24")
    made.grid(visible=False, axis="y")
    made.set_xlabel(_axis_title(record), parse_math=False)
    for row in standing.untouched:
        made.axvline(row.scores[record.score].value, color=BASE_HUE, linestyle="--", linewidth=1)
    for height, row in enumerate(rows):
        _draw_estimate(made, record, row, height)
        group = row.scores[record.score].group
        made.text(1.03, height, group, transform=made.get_yaxis_transform(), va="center", parse_math=False)
    return figure


def _draw_estimate(made: Axes, record: ComparisonRecord, row: RowRecord, height: float) -> None:
    estimate, mark = row.scores[record.score], marks(record)[row.label]
    if estimate.ci95:
        made.plot(estimate.ci95, [height - 0.1] * 2, color=mark.colour, linewidth=1.8, solid_capstyle="butt")
    if len(estimate.seeds) > 1:
        below = [height + 0.22] * len(estimate.seeds)
        made.plot(estimate.seeds, below, "o", markersize=3.4, fillstyle="none", color=mark.colour, markeredgewidth=0.8)
    _draw_mark(made, mark, estimate.value, height - 0.1)


def _draw_mark(made: Axes, mark: Mark, x: float, y: float) -> None:
    face = mark.colour if mark.hue else "#ffffff"
    shape = SHAPES[mark.shape][1]
    made.plot([x], [y], shape, markersize=6, color=mark.colour, markerfacecolor=face, zorder=3, clip_on=False)


def _axis_title(record: ComparisonRecord) -> str:
    info = record.score_info.get(record.score)
    word = {True: " (higher is better)", False: " (lower is better)"}.get(info.higher_is_better, "") if info else ""
    return f"{score_name(record.score)}{word}"


def _against(record: ComparisonRecord, found: Tradeoff) -> Figure:
    """Main score against one cost, with both bars, and the front where it joins two rows or more."""
    score = record.score
    across, up = axes(record, found, score)
    figure, made = _canvas(4.4, 3.3, (0.65, 0.55, 0.15, 0.15))
    made.set_xscale("log" if found.log else "linear")
    made.set_xlim(across.low, across.high)
    made.set_ylim(up.low, up.high)
    label = short_count if found.log else tick_label
    made.set_xticks(across.ticks, [label(tick) for tick in across.ticks])
    made.set_xticks([], minor=True)
    made.set_yticks(up.ticks, [tick_label(tick) for tick in up.ticks])
    made.set_xlabel(found.title)
    made.set_ylabel(_axis_title(record), parse_math=False)
    for row in stand(record, score).untouched:
        value = row.scores[score].value
        made.axhline(value, color=BASE_HUE, linestyle="--", linewidth=1)
        if up.low <= value <= up.high:
            made.annotate(
                one_line(row.label)[:24],
                (1, value),
                (0, 3),
                xycoords=made.get_yaxis_transform(),
                textcoords="offset points",
                ha="right",
                color="#57606a",
                parse_math=False,
            )
    front = found.on_front()
    made.plot([point.cost for point in front], [point.estimate.value for point in front], color=BASE_HUE, linewidth=1)
    for point in found.points:
        mark = marks(record)[point.row.label]
        if point.estimate.ci95:
            made.plot([point.cost] * 2, point.estimate.ci95, color=mark.colour, linewidth=1.2)
        made.plot(point.ends, [point.estimate.value] * 2, color=mark.colour, linewidth=1.2)
        _draw_mark(made, mark, point.cost, point.estimate.value)
    _name_points(figure, made, found)
    return figure


def _name_points(figure: Figure, made: Axes, found: Tradeoff) -> None:
    """Writes each name where there is room for it, in the units in which the page's figures are laid out."""
    figure.set_dpi(_UNITS)
    height = figure.get_size_inches()[1] * _UNITS

    def places(data: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(float(x), float(height - y)) for x, y in made.transData.transform(data)] if data else []

    data = [(point.cost, point.estimate.value) for point in found.points]
    lines = along(places([(point.cost, point.estimate.value) for point in found.on_front()]))
    for point in found.points:
        low, high = point.estimate.ci95 or (point.estimate.value, point.estimate.value)
        lines += along(places([(point.cost, low), (point.cost, high)]))
        lines += along(places([(end, point.estimate.value) for end in point.ends]))
    frame = made.get_window_extent()
    bounds = (frame.x0, height - frame.y1 - 8, frame.x1 + 10, height - frame.y0)
    names = [one_line(point.row.label) for point in found.points]
    ground = {"facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.8, "pad": 0.4}
    labels = place(names, places(data), bounds, lines)
    for label, (x, y), where in zip(labels, places(data), data, strict=True):
        if label:
            side = {"start": "left", "middle": "center", "end": "right"}[label.anchor]
            moved = ((label.x - x) * 72 / _UNITS, (y - label.y) * 72 / _UNITS)
            made.annotate(label.text, where, moved, textcoords="offset points", ha=side, parse_math=False, bbox=ground)
