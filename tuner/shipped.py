"""The recipes and comparisons that are shipped with inlay."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

_COMPARISON = "compare-"


class Shipped(NamedTuple):
    """A shipped recipe or comparison; `summary` is its first comment line."""

    name: str
    path: Path
    summary: str


def shipped() -> list[Shipped]:
    """All shipped recipes by name."""
    return [file for file in _files() if not file.name.startswith(_COMPARISON)]


def comparisons() -> list[Shipped]:
    """All shipped comparisons by name."""
    return [file for file in _files() if file.name.startswith(_COMPARISON)]


def _files() -> list[Shipped]:
    folder = Path(str(files("inlay.recipes")))
    return [Shipped(path.stem, path, _summary(path)) for path in sorted(folder.glob("*.yaml"))]


def _summary(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return next(lines, "").removeprefix("#").strip()
