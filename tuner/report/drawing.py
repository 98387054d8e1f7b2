"""What every figure is drawn with: a scale, round ticks, and the few SVG elements that are needed.

Colours and line styles come from the page's style sheet, so that a figure follows light, dark and print.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from inlay.tuner.report.text import visible

Place = float | str  # in the figure's units, or a share of its width or height as `43.2%`


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


def tick_label(value: float) -> str:
    """A tick's number, short: four significant digits, a power of ten where it is tiny or huge."""
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}" if value != int(value) else str(int(value))


def figure(anchor: str, title: str, about: str, width: int, height: int, kind: str) -> Element:
    """An empty figure of `width` x `height` units; `anchor` is unique on the page, `about` says what is to be seen."""
    names = {"role": "img", "aria-labelledby": f"{anchor}-title {anchor}-desc", "class": kind}
    svg = Element("svg", {"viewBox": f"0 0 {width} {height}", **names})
    SubElement(svg, "title", {"id": f"{anchor}-title"}).text = visible(title)
    SubElement(svg, "desc", {"id": f"{anchor}-desc"}).text = visible(about)
    return svg


def line(parent: Element, kind: str, x1: Place, y1: Place, x2: Place, y2: Place) -> None:
    """A straight line of the style `kind`."""
    places = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    SubElement(parent, "line", {"class": kind, **{name: place_text(place) for name, place in places.items()}})


def text(parent: Element, words: str, x: Place, y: Place, anchor: str, kind: str = "tick") -> None:
    """Words, of which `anchor` (start, middle, end) stands at x."""
    places = {"x": place_text(x), "y": place_text(y), "text-anchor": anchor}
    SubElement(parent, "text", {"class": kind, **places}).text = visible(words)


def place_text(place: Place) -> str:
    """A place as an attribute."""
    return place if isinstance(place, str) else f"{place:g}"


def diamond(parent: Element, x: float, y: float) -> None:
    """A filled diamond around a point."""
    SubElement(parent, "path", {"class": "dot", "d": f"M{x:g} {y - 5:g}l5 5l-5 5l-5 -5z"})


def markup(svg: Element) -> Markup:
    """The figure as it enters a page."""
    return Markup(tostring(svg, encoding="unicode", short_empty_elements=False))  # escaped by the serializer
