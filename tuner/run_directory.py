"""The folder of a run, and the one writer of everything in it.

A file is written whole: to a draft beside it, flushed to the disk, then moved into place. `train.jsonl` alone grows a
line at a time, so that a run can be followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from inlay.tuner.problems import MachineError, Problem, RequestError

if TYPE_CHECKING:
    from inlay.tuner.records import Prediction, RunRecord, TrainRow

RUNS = Path("runs")


class RunDirectory:
    """One run's folder; `record` is what its run.json says."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path = path
        self.record = record

    @classmethod
    def create(cls, path: Path, record: RunRecord, recipe_yaml: str) -> RunDirectory:
        """Makes the folder, which must not exist or be empty, and writes what is known before the run.

        Raises:
            RequestError: the folder holds something; nothing is ever overwritten.
            MachineError: it cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            taken = any(path.iterdir())
        except FileExistsError:
            taken = True
        except OSError as error:
            raise MachineError(f"cannot write to `{path}`: {error.strerror}") from error
        if taken:
            raise RequestError(
                Problem(f"`{path}` is not empty, and nothing is overwritten", help="name another folder with --output")
            )
        made = cls(path, record)
        write_whole(path / "recipe.yaml", recipe_yaml)
        made.update()
        return made

    def update(self, **fields: object) -> None:
        """Writes run.json with these fields changed."""
        self.record = type(self.record).model_validate({**dict(self.record), **fields})
        write_whole(self.path / "run.json", self.record.model_dump_json(indent=2) + "\n")

    def log(self, row: TrainRow) -> None:
        """Appends a line to train.jsonl."""
        with (self.path / "train.jsonl").open("a", encoding="utf-8") as file:
            file.write(row.model_dump_json() + "\n")

    def write_predictions(self, predictions: Iterable[Prediction]) -> None:
        """Writes predictions.jsonl."""
        write_whole(self.path / "predictions.jsonl", _lines(predictions))


def free_path(name: str, recipe_hash: str) -> tuple[Path, list[Path]]:
    """The first unused `runs/<name>-<hash>[-N]`, and the used ones of the same recipe before it."""
    first = RUNS / f"{name}-{recipe_hash[:7]}"
    used, path = [], first
    while path.exists():
        used.append(path)
        path = first.with_name(f"{first.name}-{len(used) + 1}")
    return path, used


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file in one move: a reader sees the old one or the new one, never half of one. Text is UTF-8."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _lines(rows: Iterable[BaseModel]) -> str:
    return "".join(row.model_dump_json() + "\n" for row in rows)
