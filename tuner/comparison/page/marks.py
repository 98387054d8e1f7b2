"""The mark of a row: a hue and a shape, the same in every figure. A label stands beside it, so neither is needed alone.

Five hues that readers of every colour vision tell apart, and seven shapes: 35 rows have a mark of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement

from inlay.tuner.comparison.records import ComparisonRecord
from inlay.tuner.report.drawing import Place, place_text

HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a5a2b")
BASE_HUE = "#767c85"
# Paths around the origin, of about equal area, and the same shapes as matplotlib calls them.
SHAPES = (
    ("M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z", "o"),
    ("M0-5.8L5.8 0L0 5.8L-5.8 0z", "D"),
    ("M-4.2-4.2h8.4v8.4h-8.4z", "s"),
    ("M0-5.6L5.6 4.4h-11.2z", "^"),
    ("M0 5.6L5.6-4.4h-11.2z", "v"),
    ("M-1.8-5.4h3.6v3.6h3.6v3.6h-3.6v3.6h-3.6v-3.6h-3.6v-3.6h3.6z", "P"),
    ("M0-5.6L5.4-1.7L3.3 4.7h-6.6L-5.4-1.7z", "p"),
)
_HOLLOW = "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z"


@dataclass(frozen=True)
class Mark:
    """`hue`: 1 to 5, or 0 for the grey of an untouched base; `shape`: its place in `SHAPES`."""

    hue: int
    shape: int

    @property
    def colour(self) -> str:
        """As `#rrggbb`."""
        return HUES[self.hue - 1] if self.hue else BASE_HUE


def marks(record: ComparisonRecord) -> dict[str, Mark]:
    """The mark of each row by label, in the order of the record, so that it does not change with the score."""
    trained = [row.label for row in record.rows if row.kind in ("method", "full")]
    found = {row.label: Mark(0, 0) for row in record.rows}
    return found | {label: Mark(i % len(HUES) + 1, i % len(SHAPES)) for i, label in enumerate(trained)}


def draw_mark(parent: Element, mark: Mark, x: Place, y: Place) -> None:
    """A filled mark, hollow for an untouched base."""
    kind = f"mark hue-{mark.hue}" if mark.hue else "mark untouched"
    _at(parent, x, y, kind, SHAPES[mark.shape][0])


def draw_seed(parent: Element, mark: Mark, x: Place, y: Place) -> None:
    """A small hollow dot: one seed."""
    _at(parent, x, y, f"seed hue-{mark.hue}", _HOLLOW)


def draw_ring(parent: Element, x: Place, y: Place) -> None:
    """A ring around a point that was chosen."""
    _at(parent, x, y, "ring", "M-9 0a9 9 0 1 0 18 0a9 9 0 1 0-18 0z")


def draw_cross(parent: Element, x: Place, y: Place) -> None:
    """Where a trial failed."""
    _at(parent, x, y, "cross", "M-4-4L4 4M4-4L-4 4")


def _at(parent: Element, x: Place, y: Place, kind: str, path: str) -> None:
    """An inner `svg` moves the path: it takes shares of the width, which a transform does not."""
    inner = SubElement(parent, "svg", {"x": place_text(x), "y": place_text(y)})
    SubElement(inner, "path", {"class": kind, "d": path})
