"""What an analysis starts from: the rows of a comparison with their cells, whether it made them or found them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inlay.tuner.comparison.evidence import Who
from inlay.tuner.comparison.plan import Kind
from inlay.tuner.comparison.records import TrialRecord
from inlay.tuner.records import RunRecord
from inlay.tuner.report import read_record

Status = Literal["running", "complete", "interrupted", "failed"]


@dataclass
class Course:
    """How a comparison went so far.

    Attributes:
        trials, chosen, at_edge: of the search, by the row's slug.
        given_up: why a row has no cells although it could be trained.
    """

    created: str
    command: str
    status: Status = "running"
    reason: str = ""
    seconds: float = 0.0
    trials: dict[str, list[TrialRecord]] = field(default_factory=dict)
    chosen: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    at_edge: dict[str, list[str]] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One seed of a row: the folder of its run, and what its run.json says; None where it has not begun."""

    seed: int
    path: Path
    record: RunRecord | None

    @classmethod
    def at(cls, path: Path, seed: int) -> Cell:
        """The cell in this folder."""
        return cls(seed, path, read_record(path) if (path / "run.json").is_file() else None)


@dataclass(frozen=True)
class RowInput:
    """A row to analyse. `who`: which of the models that its runs measured it is about. `refusal`: why it has no cells;
    the rest as in `RowRecord`."""

    label: str
    kind: Kind
    method: str
    title: str
    options: Mapping[str, Any]
    cells: Sequence[Cell]
    learning_rate: float | None = None
    refusal: str = ""
    differs: Sequence[str] = ()
    trials: Sequence[TrialRecord] = ()
    chosen: Mapping[str, Any] = field(default_factory=dict)
    at_edge: Sequence[str] = ()

    @property
    def who(self) -> Who:
        """Which of the models that a run measured the row is about."""
        return "tuned" if self.kind in ("method", "full") else self.kind

    @property
    def failed(self) -> str:
        """Why a cell failed, the first that did; empty where none did."""
        reasons = [f"seed {c.seed}: {c.record.reason}" for c in self.cells if c.record and c.record.status == "failed"]
        return reasons[0] if reasons else ""

    @property
    def done(self) -> bool:
        """Whether every cell was measured."""
        return bool(self.cells) and all(cell.record and cell.record.status == "complete" for cell in self.cells)
