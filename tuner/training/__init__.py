"""Training of an adapter with transformers' Trainer."""

import contextlib

from inlay.tuner.base import import_bitsandbytes
from inlay.tuner.problems import MachineError

with contextlib.suppress(MachineError):  # said when it is needed
    import_bitsandbytes()  # before transformers' Trainer imports it in its own way
