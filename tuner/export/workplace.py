"""Where an export is made: a hidden folder beside the target, of one process at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from inlay.tuner.problems import MachineError, Problem, RequestError

OLD = "old"  # in that folder: the export that is being replaced


@contextlib.contextmanager
def workplace(to: Path) -> Iterator[Path]:
    """An empty hidden folder beside the target `to`; it is gone afterwards, and so are parents that were made for it
    and are empty.

    What a killed export left there is cleared away, but for an export that it was about to replace.

    Raises:
        RequestError: another process exports to the same target.
        MachineError: nothing can be written there.
    """
    target = to.absolute()
    work, lock = (target.parent / f".{target.name}.{kind}" for kind in ("partial", "lock"))
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        held = _locked(lock, to)
    except OSError as error:
        raise MachineError(f"cannot write to `{target.parent}`: {error.strerror}") from error
    try:
        _begin(work, target)
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        lock.unlink(missing_ok=True)
        held.close()
        for parent in missing:  # the innermost first
            with contextlib.suppress(OSError):
                parent.rmdir()


def _locked(path: Path, to: Path) -> TextIO:
    """The open lock file, held until it is closed or the process ends, however it ends."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
        try:
            _hold(file, to)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):  # or its holder has just removed it
                file.write(f"{os.getpid()}\n")
                file.flush()
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def _hold(file: TextIO, to: Path) -> None:
    with contextlib.suppress(ImportError):
        import fcntl  # not on Windows

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.readline().strip()
            who = f"process {holder}" if holder.isdigit() else "another process"
            help = "wait until it is done, or name another folder"
            raise RequestError(Problem(f"{who} is exporting to `{to}`", file="--to", help=help)) from None


def _begin(work: Path, target: Path) -> None:
    try:
        if work.is_symlink():
            work.unlink()
        if (work / OLD).is_dir() and not target.exists():
            os.replace(work / OLD, target)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
    except OSError as error:
        raise MachineError(f"cannot write to `{work.parent}`: {error.strerror}") from error
