"""Trackers that follow training. Each training is a run of its own in them, however many one process does.

transformers opens a run of W&B where none is open and never closes it, so that the next training of the same process
would be logged into it. Trackio and TensorBoard it closes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def followed(trackers: Sequence[str]) -> Iterator[None]:
    """Closes what a training inside opens at W&B, as failed where it fails; a run that was open before stays so.

    What trackers print goes to stderr: stdout is for the answer.
    """
    before = _open_at_wandb()
    with contextlib.redirect_stdout(sys.stderr) if trackers else contextlib.nullcontext():
        failed = True
        try:
            yield
            failed = False
        finally:
            if "wandb" in trackers and before is None and _open_at_wandb() is not None:
                sys.modules["wandb"].finish(exit_code=int(failed))


def reason_against_several(trackers: Sequence[str]) -> str | None:
    """Why several trainings of this process would end up in one run of a tracker; None where they would not."""
    if "wandb" in trackers and _open_at_wandb() is not None:
        return "a run of W&B is open in this process, and all trainings would be logged into it; finish it first"
    names = {"wandb": "WANDB_RUN_ID", "tensorboard": "TENSORBOARD_LOGGING_DIR"}
    found = next((name for tracker, name in names.items() if tracker in trackers and os.environ.get(name)), None)
    return found and f"the environment sets {found}, which would make one run of all trainings; unset it"


def _open_at_wandb() -> object | None:
    """The run of W&B that is open in this process."""
    module = sys.modules.get("wandb")
    return None if module is None else module.run
