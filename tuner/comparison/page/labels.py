"""Where names stand in a figure: beside their points, on no other name and on no other point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from inlay.tuner.report.text import columns, shorten

_LETTER, _LINE = 6.4, 13.0  # width of a terminal column, height of a line, in units of a figure
_LONGEST = 22
_CLEAR = 5.5  # half the size of a mark


Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Label:
    """A name at (x, y), its baseline's `anchor`."""

    text: str
    x: float
    y: float
    anchor: Literal["start", "end", "middle"]

    @property
    def box(self) -> Box:
        """Where it is: left, top, right, bottom."""
        width = columns(self.text) * _LETTER
        left = {"start": self.x, "end": self.x - width, "middle": self.x - width / 2}[self.anchor]
        return left, self.y - _LINE + 3, left + width, self.y + 3


def place(
    names: Sequence[str], points: Sequence[tuple[float, float]], bounds: Box, lines: Sequence[Box] = ()
) -> list[Label | None]:
    """A label for each point, None where there is no room; `lines` are boxes that labels should not cross."""
    marks = [(x - _CLEAR, y - _CLEAR, x + _CLEAR, y + _CLEAR) for x, y in points]
    taken: list[Box] = []
    found: list[Label | None] = []
    for name, (x, y) in zip(names, points, strict=True):
        label = _free(shorten(name, _LONGEST), x, y, bounds, [*marks, *taken, *lines])
        label = label or _free(shorten(name, _LONGEST), x, y, bounds, [*marks, *taken])
        found.append(label)
        if label:
            taken.append(label.box)
    return found


def along(points: Sequence[tuple[float, float]]) -> list[Box]:
    """Boxes along the straight pieces between `points`, for `lines`."""
    steps = [step / 12 for step in range(13)]
    return [
        (x - 1, y - 1, x + 1, y + 1)
        for (x1, y1), (x2, y2) in pairwise(points)
        for x, y in ((x1 + (x2 - x1) * step, y1 + (y2 - y1) * step) for step in steps)
    ]


def _free(text: str, x: float, y: float, bounds: Box, taken: Sequence[Box]) -> Label | None:
    for label in (
        Label(text, x + 9, y - 6, "start"),
        Label(text, x - 9, y - 6, "end"),
        Label(text, x + 9, y + 14, "start"),
        Label(text, x - 9, y + 14, "end"),
        Label(text, x, y - 16, "middle"),
        Label(text, x, y + 24, "middle"),
        Label(text, x + 9, y + 4, "start"),
        Label(text, x - 9, y + 4, "end"),
        Label(text, x + 9, y - 19, "start"),
        Label(text, x - 9, y - 19, "end"),
        Label(text, x - 9, y + 27, "end"),
        Label(text, x + 9, y + 27, "start"),
    ):
        box = label.box
        inside = bounds[0] <= box[0] and bounds[1] <= box[1] and box[2] <= bounds[2] and box[3] <= bounds[3]
        if inside and not any(_overlap(box, other) for other in taken):
            return label
    return None


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
