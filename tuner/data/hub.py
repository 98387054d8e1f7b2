"""Data sets of the Hugging Face Hub as local files: nothing but data files of the wanted splits is fetched or read.

A split is found by file names alone (`train.jsonl`, `data/train-00000-of-00002.parquet`, `train/part.csv`), never by
what a data set's card or code says.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from inlay.tuner.problems import MachineError, Problem, RequestError

SPELLINGS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
EXTENSIONS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
TOP = "."
SITE = "https://huggingface.co/datasets"


@dataclass(frozen=True)
class Snapshot:
    """A data set at one commit.

    Attributes:
        commit: its hash.
        folder: the files as the repository names them.
        root: the folder of the cache that holds all of this data set; links of the snapshot stay in it.
        files: paths in `folder` by split, in the order of the shards.
    """

    commit: str
    folder: Path
    root: Path
    files: dict[str, list[str]]


def fetch(name: str, splits: Sequence[str], config: str | None, revision: str | None) -> Snapshot:
    """Downloads the files of some splits, or finds them in the hub's cache.

    Args:
        name: the data set's id, e.g. `org/name`.
        splits: names of the splits.
        config: folder of the configuration, where the data set has several.
        revision: branch, tag or commit; the main branch where None.

    Raises:
        RequestError: no such data set or revision, no access to it, or no file fits a split.
        MachineError: the hub cannot be reached and the cache does not hold the files.
    """
    commit, held, cached = _list(name, revision)
    files = {split: choose(held, split, config, name, whole=not cached) for split in splits}
    folder = cached or _download(name, revision, [path for paths in files.values() for path in paths])
    if folder.name != commit:
        raise MachineError(f"the data set `{name}` changed while it was fetched", help="run again")
    return Snapshot(commit, folder, folder.parent.parent, files)


def choose(held: Iterable[str], split: str, config: str | None, name: str, *, whole: bool) -> list[str]:
    """The files of one split among those that a data set holds, its shards in order.

    Args:
        held: paths in the data set.
        split, config, name: as for `fetch`.
        whole: `held` is all of the data set, and not only what the cache has of it.

    Raises:
        RequestError: none fits, several configurations do, or a shard is missing.
        MachineError: none fits or a shard is missing, and the hub may have it.
    """
    held = sorted(path for path in held if PurePosixPath(path).suffix.lower() in EXTENSIONS)
    found: dict[str, dict[tuple[int, int, int], list[str]]] = {}
    for path in held:
        folder, rank = _place(PurePosixPath(path), split)
        if rank and (config is None or config == folder or config in folder.split("/")):
            found.setdefault(folder, {}).setdefault(rank, []).append(path)
    if not found:
        under = f" of the configuration `{config}`" if config else ""
        raise _absence(f"`{name}` holds no data file for the split `{split}`{under}", _holdings(held), whole)
    if len(found) > 1 and TOP not in found:
        folders = ", ".join(f"`{folder}`" for folder in found)
        help = f"choose one by `config`: {folders}"
        raise _refusal(f"`{name}` holds the split `{split}` in several folders", help)
    versions = found[TOP] if TOP in found else next(iter(found.values()))
    paths = versions[min(versions)]
    declared = re.search(r"-of-(\d+)(?:-[0-9a-f]{16})?\.\w+$", paths[0])
    if declared and len(paths) != int(declared[1]):
        message = f"`{name}` holds only {len(paths)} of the {int(declared[1])} files of the split `{split}`"
        raise _absence(message, _holdings(paths), whole)
    return paths


def _absence(message: str, holdings: str, whole: bool) -> RequestError | MachineError:
    if whole:
        return _refusal(message, holdings)
    return MachineError(f"the cached part of {message}", help=f"run once with a connection; without one, {holdings}")


def _place(path: PurePosixPath, split: str) -> tuple[str, tuple[int, int, int] | None]:
    """The folder that a file of a split is in, and its rank; no rank if it is no file of the split.

    Where a split is there more than once, the lowest rank is the one to read, and only files of one rank belong
    together. It counts how far down the lists stand the spelling and the extension, then: one file, shards, a folder.
    """
    spellings = SPELLINGS.get(split, (split,))
    form = EXTENSIONS.index(path.suffix.lower())
    stem, shard = re.fullmatch(r"(.+?)([-_.]\d+(?:-of-\d+(?:-[0-9a-f]{16})?)?)?", path.stem).groups()
    if stem.lower() in spellings:
        return path.parent.as_posix(), (spellings.index(stem.lower()), form, 1 if shard else 0)
    if path.parent.name.lower() in spellings:
        return path.parent.parent.as_posix(), (spellings.index(path.parent.name.lower()), form, 2)
    return "", None


def _holdings(held: Sequence[str]) -> str:
    listed = ", ".join(f"`{path}`" for path in held[:12])
    if not held:
        return f"it holds no file that can be read ({', '.join(EXTENSIONS)})"
    return f"its data files are {listed}" + (f" and {len(held) - 12} more" if len(held) > 12 else "")


def _list(name: str, revision: str | None) -> tuple[str, list[str], Path | None]:
    """Commit and file names of a data set; and its folder in the cache, where the hub could not be asked."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,  # the client library's own, whichever the hub's client is built on
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if revision and ".." in revision:
        raise _refusal(f"`{revision}` is not a branch, tag or commit", path="task.data.revision")
    try:
        info = HfApi().dataset_info(name, revision=revision)
    except HFValidationError:
        raise _refusal(f"`{name}` is not a data set id; expected `owner/name`") from None
    except GatedRepoError:
        help = f"ask for it at {SITE}/{name}, then `hf auth login`"
        raise _refusal(f"access to the data set `{name}` is granted on request", help) from None
    except RepositoryNotFoundError:
        help = "check its spelling; if it is private, `hf auth login` first"
        raise _refusal(f"the hub has no data set `{name}`", help) from None
    except RevisionNotFoundError:
        raise _refusal(f"the data set `{name}` has no revision `{revision}`", path="task.data.revision") from None
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        return _list_cached(name, revision, error)
    return info.sha, [sibling.rfilename for sibling in info.siblings], None


def _refusal(message: str, help: str = "", path: str = "task.data.hub") -> RequestError:
    return RequestError(Problem(message, path=path, help=help))


def _list_cached(name: str, revision: str | None, reason: Exception) -> tuple[str, list[str], Path]:
    """The same from the cache alone; `reason` is why the hub could not be asked."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        # No pattern: the folder is asked for, however much of the data set it holds.
        found = snapshot_download(
            name, repo_type="dataset", revision=revision, local_files_only=True, allow_patterns=[]
        )
    except LocalEntryNotFoundError:
        offline = isinstance(reason, OfflineModeIsEnabled)
        why = "the network is turned off" if offline else f"the hub cannot be reached: {_words(reason)}"
        message = f"the data set `{name}` is not in the hub's cache, and {why}"
        raise MachineError(message, help="run once with a connection, or name local files in `task.data`") from None
    folder = Path(found)
    return folder.name, [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()], folder


def _download(name: str, revision: str | None, paths: Sequence[str]) -> Path:
    """Fetches some files; by the revision as it was given, so that the cache can later resolve it without the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    patterns = [glob.escape(path) for path in paths]
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except (HTTPError, OSError) as error:
        raise MachineError(f"the data set `{name}` could not be fetched: {_words(error)}") from error


def _words(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
