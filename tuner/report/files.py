"""The files of a run, read and checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.records import SCHEMA_VERSION, Prediction, RunRecord, TrainRow

_Row = TypeVar("_Row", bound=BaseModel)


@dataclass(frozen=True)
class RunFiles:
    """What a run left: its record, the rows of its logs (none where the file is missing) and its recipe."""

    record: RunRecord
    predictions: list[Prediction]
    steps: list[TrainRow]
    recipe: str


def read_run(run: Path) -> RunFiles:
    """Reads a run's folder.

    Raises:
        RequestError: `run` holds no `run.json`, or a file in it is not what inlay writes.
    """
    recipe = run / "recipe.yaml"
    return RunFiles(
        record=read_record(run),
        predictions=list(_rows(run / "predictions.jsonl", Prediction)),
        steps=list(_rows(run / "train.jsonl", TrainRow)),
        recipe=recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else "",
    )


def read_record(run: Path) -> RunRecord:
    """Reads `run.json`.

    Raises:
        RequestError: it is missing, damaged, or of a schema that this version does not know.
    """
    path = run / "run.json"
    if not path.is_file():
        raise RequestError(f"`{run}` holds no run.json, so it is not a run", help="give a folder that `inlay run` made")
    return read_document(path, RunRecord, SCHEMA_VERSION)


def read_document(path: Path, model: type[_Row], version: int) -> _Row:
    """Reads a JSON file that carries a `schema_version`.

    Raises:
        RequestError: it is damaged, or of another schema than `version`.
    """
    text = path.read_bytes()
    try:
        found = json.loads(text).get("schema_version")
    except (ValueError, AttributeError):
        found = version  # not a record at all: the model below says what is wrong
    if found != version:
        message = f"{path.name} has schema version {found}; this inlay reads {version}"
        raise RequestError(Problem(message, file=str(path), help="use the inlay version that made it"))
    return _checked(model, text, path)


def _rows(path: Path, model: type[_Row]) -> Iterator[_Row]:
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") and not _is_json(line):
                return  # the run was killed in the middle of its last line
            if line.strip():
                yield _checked(model, line, path, number)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _checked(model: type[_Row], text: bytes, path: Path, line: int = 0) -> _Row:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RequestError(Problem(first["msg"].lower(), file=str(path), line=line, path=place)) from error
