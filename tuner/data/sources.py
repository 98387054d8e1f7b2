"""The door to the data: where a recipe says its rows are, and the splits that come of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inlay.tuner.data import hub
from inlay.tuner.data.columns import Columns
from inlay.tuner.data.formats import Row
from inlay.tuner.data.reader import read_split
from inlay.tuner.data.splits import Sample, draw
from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.records import InputFile

TRAIN = "train"


@dataclass(frozen=True)
class Source:
    """Where the rows are: named files, or a hub data set.

    Attributes:
        files: path of each split's file; empty for a hub data set.
        shown: each of those paths as the user wrote it.
        hub: id of a data set on the Hugging Face Hub.
        names: what that data set calls a split, where it differs.
        config: the configuration (a folder of the data set), where there are several.
        revision: branch, tag or commit of the data set; the main branch where None.
        draw: splits that are drawn from the training file, and their shares of its rows.
        max_rows: largest number of rows by split; a sample by content hash is taken of more.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    hub: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    config: str | None = None
    revision: str | None = None
    draw: Mapping[str, float] = field(default_factory=dict)
    max_rows: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Splits:
    """Rows by split under the task's column names, every file that was read, and the hub data set's commit."""

    rows: dict[str, list[Row]]
    inputs: list[InputFile]
    commit: str | None


@dataclass(frozen=True)
class _File:
    path: Path
    shown: str
    root: Path | None = None  # links may not lead out of it


def open_splits(data: Source, columns: Columns, wanted: Sequence[str]) -> Splits:
    """Reads the wanted splits.

    Args:
        data: where the rows are.
        columns: what the rows must hold.
        wanted: names of the splits, e.g. `("train", "test")`; each must have rows.

    Raises:
        RequestError: every mistake in every file: missing splits, files and columns, malformed rows.
        MachineError: the hub cannot be reached and the data set is not in its cache.
    """
    problems = [*columns.unknown(), *_contradictions(data, wanted)]
    if problems:
        raise RequestError(problems)
    needed = list(dict.fromkeys(TRAIN if name in data.draw else name for name in wanted))
    files, commit = _locate(data, needed)
    samples = {name: Sample(data.max_rows.get(name)) for name in wanted}
    for split in needed:
        shares = data.draw if split == TRAIN else {}
        try:
            for row in _rows(files[split], columns):
                name = draw(row, shares) if shares else split
                if name in samples:
                    samples[name].add(row)
        except RequestError as failure:
            problems += failure.problems
    if problems:
        raise RequestError(problems)
    rows = {name: sample.rows() for name, sample in samples.items()}
    _refuse_empty(rows)
    named = {file.path: file for split in needed for file in files[split]}
    return Splits(rows, [_input_file(file) for file in named.values()], commit)


def _contradictions(data: Source, wanted: Sequence[str]) -> list[Problem]:
    """What is wrong with a source before anything is read."""
    problems = [
        Problem(f"the split `{name}` has a file, and is also drawn", path=f"task.data.draw.{name}")
        for name in data.draw
        if name in data.files or name == TRAIN
    ]
    if data.draw and sum(data.draw.values()) >= 1:
        problems.append(Problem("the drawn shares leave no rows to train on", path="task.data.draw"))
    for name in wanted:
        if not data.hub and name not in data.files and name not in data.draw:
            help = f"name a file: `{name}: FILE`" + ("" if name == TRAIN else f", or draw it: `draw: {{{name}: 0.1}}`")
            problems.append(Problem(f"there is no `{name}` split", path="task.data", help=help))
    if not data.hub and data.draw and TRAIN not in data.files:
        problems.append(Problem("splits are drawn from a training file, and there is none", path="task.data.draw"))
    return problems


def _locate(data: Source, needed: Sequence[str]) -> tuple[dict[str, list[_File]], str | None]:
    if not data.hub:
        return {name: [_File(data.files[name], data.shown[name])] for name in needed}, None
    theirs = {name: data.names.get(name, name) for name in needed}
    snapshot = hub.fetch(data.hub, list(theirs.values()), data.config, data.revision)
    files = {
        name: [_File(snapshot.folder / inner, f"{data.hub}/{inner}", snapshot.root) for inner in snapshot.files[own]]
        for name, own in theirs.items()
    }
    return files, snapshot.commit


def _rows(files: Sequence[_File], columns: Columns) -> Iterator[Row]:
    """The rows of a split's files; raises after the last one what was wrong in any of them."""
    problems: list[Problem] = []
    for file in files:
        try:
            yield from read_split(file.path, file.shown, columns, file.root)
        except RequestError as failure:
            problems += failure.problems
    if problems:
        raise RequestError(problems)


def _refuse_empty(rows: Mapping[str, list[Row]]) -> None:
    """A file without rows was refused when it was read; a draw from a small file can still come out empty."""
    problems = [
        Problem(f"the draw left no rows for the split `{name}`", path="task.data.draw", help="draw other shares")
        for name, found in rows.items()
        if not found
    ]
    if problems:
        raise RequestError(problems)


def _input_file(file: _File) -> InputFile:
    with file.path.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        size = opened.tell()
    name = file.path.name if Path(file.shown).is_absolute() else file.shown
    return InputFile(name=name, sha256=sha256, bytes=size)
