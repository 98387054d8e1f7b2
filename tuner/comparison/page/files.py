"""The files of a comparison, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inlay.tuner.comparison.records import ComparisonRecord
from inlay.tuner.comparison.store import read_comparison
from inlay.tuner.report.files import RunFiles, read_run


@dataclass(frozen=True)
class ComparisonFiles:
    """A comparison, and by a row's label the runs of its seeds; rows that are not done have none."""

    record: ComparisonRecord
    cells: dict[str, list[RunFiles]]


def read_files(folder: Path) -> ComparisonFiles:
    """Reads a comparison's folder.

    Raises:
        RequestError: it holds no `comparison.json`, or a file of it is missing or damaged.
    """
    record = read_comparison(folder)
    done = [row for row in record.rows if row.status == "done"]
    return ComparisonFiles(record, {row.label: [read_run(folder / cell) for cell in row.cells] for row in done})
