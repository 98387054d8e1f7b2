"""A process of its own, without network, that knows of an export what it is given and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import inlay
from inlay.tuner.problems import AnswerNo, MachineError


def run_fresh(
    module: str,
    arguments: Sequence[str] = (),
    *,
    failed: str,
    stdin: str = "",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Runs a module of this package.

    Args:
        failed: what is said before the last line of its errors.
        stdin: what it reads.
        environment: what it is told beside this process's own.

    Returns:
        What it printed.

    Raises:
        AnswerNo: it failed.
        MachineError: it ran out of memory, or was killed.
    """
    command = [sys.executable, "-P", "-m", module, *arguments]
    surroundings = {**_offline(), **environment}
    done = subprocess.run(command, input=stdin, env=surroundings, capture_output=True, text=True)
    if done.returncode < 0 or (done.returncode and "OutOfMemoryError" in done.stderr):
        help = "nothing was written; end what else needs memory, or export on a machine with more"
        raise MachineError("the process that opens the export ran out of memory, or was killed", help=help)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise AnswerNo(f"{failed}: {last}", help="nothing was written")
    return done.stdout


def _offline() -> dict[str, str]:
    """The environment of a process that reaches no network and finds this package."""
    package = str(Path(inlay.__file__).absolute().parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "HF_HUB_OFFLINE": "1", "USE_HUB_KERNELS": "0", "PYTHONPATH": os.pathsep.join(paths)}
