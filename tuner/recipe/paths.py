"""Which files a recipe may name, and where they are.

A recipe can come from a stranger, so it only reaches below its own folder and the current directory, and never a URL.
An absolute path is something that the person at the keyboard says, through `--set`.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

EMBEDDED = "embedded"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(file|data|hf):", re.IGNORECASE)
_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")
_LOCAL = re.compile(r"\.{1,2}([/\\]|$)|~|.*[/\\].*[/\\]|.*[/\\]$|[/\\]|[A-Za-z]:")


class PathError(ValueError):
    """A path that cannot be used. `help` says what to write instead."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.help = help


def locate_model(text: str, folder: Path, *, commanded: bool) -> str:
    """The model's absolute folder, or `text` itself where it is `embedded` or a hub id.

    A folder that exists is taken before a hub id of the same name, so it is never looked up on the hub.

    Args:
        text: what the user wrote.
        folder: the recipe's.
        commanded: it came from `--set`: any local path will do.

    Raises:
        PathError: it is neither, or it may not be used.
    """
    _refuse_url(text)
    if text == EMBEDDED:
        return text
    if _LOCAL.match(text) or _exists(text, [Path.cwd()] if commanded else [folder, Path.cwd()]):
        found = _locate(text, folder, commanded=commanded)
        if found.is_dir():
            return str(found)
        raise PathError(f"there is no folder `{text}`", "a model is a folder, a hub id or `embedded`")
    if not _HUB_ID.fullmatch(text):
        raise PathError(f"`{text}` is neither a folder nor a hub id", "write `owner/name`, a folder or `embedded`")
    return text


def locate_file(text: str, folder: Path, *, commanded: bool) -> str:
    """The absolute path of a data file; arguments as for `locate_model`.

    Raises:
        PathError: it does not exist, or it may not be used.
    """
    found = Path(locate_place(text, folder, commanded=commanded))
    if found.is_dir():
        raise PathError(f"`{text}` is a folder", "name one file: .jsonl, .csv or .parquet")
    if not found.is_file():
        close = _nearest_file(found)
        raise PathError(f"there is no file `{text}`", f"did you mean `{close}`?" if close else "")
    return str(found)


def locate_place(text: str, folder: Path, *, commanded: bool) -> str:
    """The absolute path of a data file that may be gone by now; arguments as for `locate_model`.

    Raises:
        PathError: it may not be used.
    """
    _refuse_url(text)
    return str(_locate(text, folder, commanded=commanded))


def locate_adapter(text: str, folder: Path, *, commanded: bool) -> str:
    """The absolute folder of a run or of an adapter; arguments as for `locate_model`.

    Raises:
        PathError: it does not exist, or it may not be used.
    """
    _refuse_url(text)
    found = _locate(text, folder, commanded=commanded)
    if not found.is_dir():
        raise PathError(f"there is no folder `{text}`", "name a run's folder, or an adapter's")
    return str(found)


def check_hub_id(text: str) -> None:
    """Raises `PathError` unless `text` can be the id of a dataset on the hub."""
    _refuse_url(text)
    if not _HUB_ID.fullmatch(text):
        raise PathError(f"`{text}` is not a hub id", "write `owner/name`; a file goes under `train`")


def _refuse_url(text: str) -> None:
    if _URL.match(text):
        raise PathError("a URL is not read", "write the hub id (`owner/name`), or download it and name the file")
    if not text.isprintable():
        raise PathError("the name holds a control character")


def _locate(text: str, folder: Path, *, commanded: bool) -> Path:
    if commanded:
        with _reachable(text):
            return Path(text).expanduser().resolve()
    if text.startswith("~") or _ABSOLUTE.match(text):
        raise PathError(
            "a path in a recipe is relative to the recipe",
            "an absolute path belongs on the command line: `--set PATH.TO.KEY=/...`",
        )
    if "\\" in text:
        raise PathError("a path in a recipe has no backslash", "write `/` between folders")
    roots = [folder.resolve(), Path.cwd().resolve()]
    candidates = [(root / text).resolve() for root in roots]
    inside = [path for path in candidates if any(path.is_relative_to(root) for root in roots)]
    if not inside:
        raise PathError(
            "a path in a recipe stays under the recipe's folder or the current directory",
            "a file elsewhere is named on the command line: `--set PATH.TO.KEY=/...`",
        )
    with _reachable(text):
        return next((path for path in inside if path.exists()), inside[0])


def _exists(text: str, roots: list[Path]) -> bool:
    with _reachable(text):
        return any((root / text).exists() for root in roots)


@contextlib.contextmanager
def _reachable(text: str) -> Iterator[None]:
    """Turns what the system says of a path (too long, not permitted, a user without a home) into a `PathError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PathError(f"the path cannot be looked up: {str(reason).lower()}") from error


def _nearest_file(missing: Path) -> str:
    if not missing.parent.is_dir():
        return ""
    known = [path.name for path in missing.parent.iterdir() if path.is_file()]
    close = difflib.get_close_matches(missing.name, known, n=1)
    return close[0] if close else ""
