"""Axes, linear or logarithmic, and the empty plot that they make."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from inlay.tuner.report import drawing as draw

WIDTH, HEIGHT = 320, 236
LEFT, RIGHT, TOP, BOTTOM = 40, 314, 12, 192
_MARGIN = 0.06


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, with `ticks` between them, as shares of one; `log`: equal ratios are equal steps."""

    low: float
    high: float
    ticks: list[float]
    log: bool = False

    def share(self, value: float) -> float:
        """How far `value` is from `low` to `high`."""
        low, high, at = (self._place(number) for number in (self.low, self.high, value))
        return (at - low) / (high - low) if high > low else 0.5

    def _place(self, value: float) -> float:
        return math.log10(value) if self.log else value


def linear(values: Iterable[float], number: int, margin: float = _MARGIN) -> Axis:
    """An axis that holds all `values` with a margin on both sides, and about `number` round ticks."""
    found = list(values)
    low, high = min(found), max(found)
    room = (high - low or abs(high) or 1.0) * margin
    low, high = low - room, high + room
    return Axis(low, high, draw.ticks(low, high, number))


def logarithmic(values: Iterable[float], number: int) -> Axis:
    """The same in equal ratios, for values above zero: ticks at powers of ten, or at 1, 2, 5 on a short range."""
    found = list(values)
    low, high = math.log10(min(found)), math.log10(max(found))
    room = max((high - low) * _MARGIN, 0.05)
    low, high = low - room, high + room
    powers = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        fitting = [f * 10.0**power for power in powers for f in factors if low <= math.log10(f * 10.0**power) <= high]
        if len(fitting) > 2:
            break
    else:
        fitting = fitting or [10 ** ((low + high) / 2)]
    return Axis(10**low, 10**high, fitting[:: math.ceil(len(fitting) / (number + 1))], log=True)


def short_count(value: float) -> str:
    """A tick of counts: 55k, 4.9M, 1.2B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def power(value: float) -> str:
    """A tick of learning rates: 3e-4."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


@dataclass(frozen=True)
class Plot:
    """An empty plot with its grid: `x` and `y` place values in it."""

    svg: Element
    across: Axis
    up: Axis

    def x(self, value: float) -> float:
        """The place of a value on the horizontal axis."""
        return round(LEFT + self.across.share(value) * (RIGHT - LEFT), 2)

    def y(self, value: float) -> float:
        """The place of a value on the vertical axis."""
        return round(BOTTOM - self.up.share(value) * (BOTTOM - TOP), 2)


def plot(
    anchor: str,
    title: str,
    about: str,
    across: Axis,
    up: Axis,
    *,
    x_title: str = "",
    x_tick: Callable[[float], str] = draw.tick_label,
) -> Plot:
    """Grid, ticks and the title of the horizontal axis; what the vertical one shows stands in the caption."""
    made = Plot(draw.figure(anchor, title, about, WIDTH, HEIGHT, "plot"), across, up)
    for tick in up.ticks:
        draw.line(made.svg, "grid", LEFT, made.y(tick), RIGHT, made.y(tick))
        draw.text(made.svg, draw.tick_label(tick), LEFT - 8, made.y(tick) + 4, "end")
    for tick in across.ticks:
        draw.line(made.svg, "axis", made.x(tick), BOTTOM, made.x(tick), BOTTOM + 4)
        draw.text(made.svg, x_tick(tick), made.x(tick), BOTTOM + 18, "middle")
    draw.line(made.svg, "axis", LEFT, BOTTOM, RIGHT, BOTTOM)
    if x_title:
        draw.text(made.svg, x_title, RIGHT, BOTTOM + 36, "end", "axis-title")
    return made
