"""How numbers are written, on the page and in the terminal alike.

One rule for scores: the width of a number's own 95 % interval, taken to two significant digits, decides its last
digit. A number without an interval (or with one of no width) is written with three significant digits.
"""

from __future__ import annotations

import math

Interval = tuple[float, float]

MISSING = "-"
_MOST_DECIMALS = 9
_PLAIN_DIGITS = 3


def last_digit(value: float, ci95: Interval | None) -> int:
    """The number of decimals that `value` earns; negative where even its tens or hundreds are not certain."""
    if ci95 and ci95[1] > ci95[0]:
        return min(1 - _exponent(ci95[1] - ci95[0], digits=2), _MOST_DECIMALS)
    if value == 0:
        return 0
    return min(max(_PLAIN_DIGITS - 1 - _exponent(value, digits=_PLAIN_DIGITS), 0), _MOST_DECIMALS)


def _exponent(number: float, *, digits: int) -> int:
    """The power of ten of the first digit after rounding to `digits`: -1 for 0.0996 at two digits, which is 0.10."""
    return int(f"{number:.{digits - 1}e}".split("e")[1])


def rounded(value: float, decimals: int, *, signed: bool = False) -> str:
    """`value` to `decimals`; never `-0.0`; `signed` puts a plus before what is positive after rounding."""
    number = round(value, decimals) + 0.0
    sign = "+" if signed and number else ""
    if abs(number) >= 1e7:
        return f"{number:{sign}.2e}"
    return f"{number:{sign}.{max(decimals, 0)}f}"


def figure(value: float, ci95: Interval | None, *, signed: bool = False) -> str:
    """`value` with the digits that its interval earns."""
    return rounded(value, last_digit(value, ci95), signed=signed)


def interval(value: float, ci95: Interval, *, signed: bool = False) -> str:
    """Both ends of the interval of `value`, with the same last digit as `figure(value, ci95)`."""
    decimals = last_digit(value, ci95)
    return " to ".join(rounded(end, decimals, signed=signed) for end in ci95)


def plain(value: float) -> str:
    """Three significant digits, for a number that has no interval."""
    if value and not 1e-3 <= abs(value) < 1e7:
        mantissa, exponent = f"{value:.{_PLAIN_DIGITS - 1}e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return figure(value, None)


def count(number: int) -> str:
    """`393,216`."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """`1 row`, `2,400 rows`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """A share of one as `10.3 %`."""
    return f"{plain(100 * share)} %"


def size(bytes_: int) -> str:
    """`1.61 MB`; decimal units, three significant digits."""
    if bytes_ < 1000:
        return f"{bytes_} bytes"
    power = min(int(math.log10(bytes_) / 3), 4)
    amount = float(f"{bytes_ / 1000**power:.{_PLAIN_DIGITS - 1}e}")
    if amount >= 1000 and power < 4:
        amount, power = amount / 1000, power + 1
    return f"{plain(amount)} {('', 'kB', 'MB', 'GB', 'TB')[power]}"


def duration(seconds: float) -> str:
    """`4.20 s`, `46 s`, `3 min 12 s`, `1 h 04 min`."""
    if seconds < 10:
        return f"{plain(seconds)} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
