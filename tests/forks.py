"""Processes as fresh as forks can be: of one that has imported torch and transformers, and nothing else."""

from __future__ import annotations

import importlib
import io
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path


class Forks:
    """Stands in for `subprocess` where a module of Python is run to its end; open as long as a test session."""

    def __init__(self) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "USE_HUB_KERNELS": "0", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, command, *, input, env, capture_output, text) -> subprocess.CompletedProcess:
        """As `subprocess.run`, for `python -P -m MODULE ARGUMENTS`."""
        assert command[:3] == [sys.executable, "-P", "-m"]
        assert capture_output
        assert text
        with tempfile.TemporaryDirectory() as folder:
            asked = {"arguments": command[3:], "input": input, "env": dict(env), "cwd": os.getcwd(), "folder": folder}
            print(json.dumps(asked), file=self._process.stdin, flush=True)
            code = int(self._process.stdout.readline())
            said, errors = ((Path(folder) / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(command, code, said, errors)

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


def main() -> None:
    for name in ("torch", "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama"):
        importlib.import_module(name)  # what forks need not import again
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(arguments: list[str], input: str, env: dict[str, str], cwd: str, folder: str) -> None:
    """Goes on as that process, to its end."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), number)
    sys.stdin = io.StringIO(input)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)
    sys.argv = arguments
    code = 0
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
