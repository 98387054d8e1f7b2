"""Reads data files: which files are opened at all, and every row of them checked against the columns of a task."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from inlay.tuner.data.columns import Columns
from inlay.tuner.data.formats import READERS, Row, UnreadableError
from inlay.tuner.problems import Problem, RequestError

PROBLEMS_SHOWN = 5
FORMATS = ".jsonl, .json, .csv, .tsv or .parquet"


def read_split(path: Path, shown: str, columns: Columns, root: Path | None = None) -> Iterator[Row]:
    """Yields the rows of a file under the task's own column names; holds one row at a time.

    Args:
        path, shown, root: as for `read_rows`.
        columns: what the rows must hold.

    Raises:
        RequestError: after the last row, if any row was malformed or there was none: the first five, then a count.
    """
    problems: list[Problem] = []
    bad = good = 0
    for item in read_rows(path, shown, root):
        missing = columns.missing(item) if isinstance(item, Row) and not good + bad else None
        row = missing or (columns.take(item) if isinstance(item, Row) else item)
        if isinstance(row, Row):
            good += 1
            yield row
            continue
        bad += 1
        if bad <= PROBLEMS_SHOWN:
            note = "Parquet has no lines: this is the number of the row" if row.line and _is_parquet(path) else ""
            problems.append(replace(row, note=note))
        if missing:
            break
    if bad > PROBLEMS_SHOWN:
        problems.append(Problem(f"{bad - PROBLEMS_SHOWN} more rows are malformed, {bad} in all", file=shown))
    if not good + bad:
        problems.append(Problem("the file holds no rows", file=shown))
    if problems:
        raise RequestError(problems)


def read_rows(path: Path, shown: str, root: Path | None = None) -> Iterator[Row | Problem]:
    """Yields the rows of a file in their order, and a `Problem` in the place of each malformed one.

    Args:
        path: the file; its extension decides the format.
        shown: the path as the user wrote it, for messages and `Row.file`.
        root: links may not lead out of this folder; by default the folder in which the file is named.
    """
    problem = _refusal(path, shown, root or path.parent)
    if problem:
        yield problem
        return
    reader = READERS[path.suffix.lower()]
    try:
        with path.open("rb") as file:
            yield from reader(file, shown)
    except UnreadableError as error:
        yield error.problem
    except OSError as error:
        yield Problem(f"cannot read the file: {error.strerror or error}", file=shown)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _refusal(path: Path, shown: str, root: Path) -> Problem | None:
    """Why a path is not opened at all, or None."""
    if "://" in shown:
        return Problem("data files are read from this machine only", file=shown, help="download the file first")
    try:
        kind = path.stat().st_mode
        inside = path.resolve(strict=True).is_relative_to(root.resolve(strict=True))
    except FileNotFoundError:
        return Problem("no such file", file=shown, help=_nearest(path, shown))
    except (OSError, ValueError) as error:
        return Problem(f"cannot read the file: {getattr(error, 'strerror', None) or error}", file=shown)
    if stat.S_ISDIR(kind):
        return Problem("this is a folder; expected a data file", file=shown, help="name one file for each split")
    if not stat.S_ISREG(kind):
        return Problem("this is not a regular file", file=shown)
    if not inside:
        return Problem("the link leads out of its folder", file=shown, help="copy the file, or name its real path")
    if path.suffix.lower() not in READERS:
        return Problem(f"`{path.suffix}` is not a data format; expected {FORMATS}", file=shown)
    return None


def _nearest(path: Path, shown: str) -> str:
    """The fix for a missing file: a name in its folder that is close to it, or what is missing above it."""
    if path.is_symlink():
        return "the link points to a file that does not exist"
    if not path.parent.is_dir():
        return f"the folder `{Path(shown).parent}` does not exist"
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in READERS)
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        return f"did you mean `{Path(shown).parent / close[0]}`?"
    return f"its folder holds {', '.join(names[:5])}" if names else "its folder holds no data file"
