"""The command line: calls a verb and turns what went wrong into words and an exit code.

Exit codes: 0 done as asked; 1 the answer is no; 2 the request is wrong; 3 this machine cannot; 4 a bug of inlay's;
130 interrupted (143 by SIGTERM).
"""

from __future__ import annotations

import difflib
import errno
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from inlay.tuner.problems import Failure, Interrupted, MachineError, Problem, RequestError
from inlay.tuner.verbs import command_line


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command line (the process's own by default) and exits with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        code = _dispatch(given)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        code = stop.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except Exception as error:
        failure = _as_failure(error)
        if debug or failure is None:
            traceback.print_exc(file=sys.stderr) if debug else print(_bug(error), file=sys.stderr)
        if failure:
            _tell(failure)
        code = failure.exit_code if failure else 4
    sys.exit(code)


def _dispatch(given: list[str]) -> int:
    parser, verbs = command_line()
    _check_verb(given, list(verbs))
    options = parser.parse_args(given)
    if options.call is None:
        parser.print_help()
        return 0
    options.command = shlex.join(["inlay", *given])
    return options.call(options) or 0


def _as_failure(error: Exception) -> Failure | None:
    """The failure that an exception stands for, or None where it is a bug."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, ImportError):
        from inlay.tuner.doctor import missing_library

        problem = missing_library(error)
        return MachineError(problem) if problem else None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError("the disk is full", help="free some space and run the same command again")
    return None


def _tell(failure: Failure) -> None:
    print(failure, file=sys.stderr)
    if len(failure.problems) > 1:
        print(f"note: {len(failure.problems)} problems in all", file=sys.stderr)


def _bug(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return (
        f"inlay broke: {type(error).__name__}: {first}\n"
        "help: this is a bug; please report it with the output of the same command with `--debug`, and `inlay doctor`"
    )


def _check_verb(given: list[str], verbs: list[str]) -> None:
    verb = next((argument for argument in given if not argument.startswith("-")), None)
    if verb is None or verb in verbs:
        return
    close = difflib.get_close_matches(verb, verbs, n=1)
    help = f"did you mean `inlay {close[0]}`?" if close else f"one of {', '.join(verbs)}"
    if Path(verb).suffix in (".yaml", ".yml"):
        help = f"did you mean `inlay run {shlex.quote(verb)}`?"
    raise RequestError(Problem(f"`{verb}` is not something that inlay does", help=help))
