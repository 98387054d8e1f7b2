"""The folder of a comparison: where it is, whether it is finished, and the one writer of its comparison.json.

    runs/<name>-<hash>/comparison.json, comparison.html, ...
                       cells/<row>-s<seed>/     a run's folder each
                       trials/<row>-t<trial>/

Nothing heavy is imported: a comparison that is finished answers at once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from inlay.tuner.comparison.plan import Plan
from inlay.tuner.comparison.records import SCHEMA_VERSION, ComparisonRecord
from inlay.tuner.model_files import locate
from inlay.tuner.problems import RequestError
from inlay.tuner.recipe import Recipe
from inlay.tuner.report.files import read_document
from inlay.tuner.run_directory import free_path, write_whole

RECORD = "comparison.json"


def read_comparison(folder: Path) -> ComparisonRecord:
    """Reads a comparison's record.

    Raises:
        RequestError: there is none, it is damaged, or of a schema that this version does not know.
    """
    path = folder / RECORD
    if not path.is_file():
        message = f"`{folder}` holds no {RECORD}, so it is not a comparison"
        raise RequestError(message, help="give a folder that `inlay compare` made")
    return read_document(path, ComparisonRecord, SCHEMA_VERSION)


def write_comparison(folder: Path, record: ComparisonRecord) -> None:
    """Writes comparison.json whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / RECORD, record.model_dump_json(indent=2) + "\n")


def folder_of(plan: Plan, output: Path | None, *, again: bool) -> tuple[Path, ComparisonRecord | None]:
    """Where the comparison goes, and what stands there of an earlier attempt at the same.

    Raises:
        RequestError: `output` holds something else; nothing is overwritten.
    """
    if output is not None:
        if (output / RECORD).is_file():
            record = read_comparison(output)
            if record.identity == plan.identity and not again:
                return output, record
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            message = f"`{output}` holds something else, and nothing is overwritten"
            raise RequestError(message, help="name another folder with --output")
        return output, None
    free, used = free_path(plan.name, plan.identity)
    for path in reversed(used if not again else []):
        if (path / RECORD).is_file():
            record = read_comparison(path)
            if record.identity == plan.identity:
                return path, record
    return free, None


def require_same_inputs(record: ComparisonRecord, recipe: Recipe, folder: Path) -> None:
    """Checks that base and data are still those that the comparison was begun with.

    Raises:
        RequestError: they are not; its cells would mix two comparisons.
    """
    if record.base is None or record.data is None:
        return
    changed = ""
    if locate(recipe.base.model, recipe.base.revision).sha256() != record.base.sha256:
        changed = "the base"
    before = {file.name: file.sha256 for file in record.data.inputs}
    for split in ("train", "validation", "test"):
        place = getattr(recipe.task.data, split)
        written = recipe.written(f"task.data.{split}")
        if place and recipe.task.data.hub is None and written in before and _sha256(Path(place)) != before[written]:
            changed = f"`{written}`"
    if changed:
        raise RequestError(
            f"{changed} has changed since `{folder}` was begun", help="--again begins a new comparison"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
