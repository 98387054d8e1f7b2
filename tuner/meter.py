"""Peak memory of a phase: device memory on CUDA, resident memory of the process elsewhere."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEMORY, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


class PeakMemory:
    """Measures from entering to leaving the context.

    On Linux the kernel's high-water mark is reset on entering. Elsewhere it cannot be, so there the peak is that of the
    process so far.

    Attributes:
        bytes: the peak, after leaving.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        if self.device != "cpu":
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):
                _RESET.write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        if self.device != "cpu":
            import torch

            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self.bytes = _high_water_mark()


def free_memory() -> int | None:
    """Memory in bytes that this process can still take: what the system has free, or its container allows, if that is
    less. None where the system does not say."""
    if not _MEMORY.is_file():
        return None
    lines = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError, KeyError):  # no limit reads `max`
        allowed, taken = (int((_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        free = min(free, max(0, allowed - taken + int(found["inactive_file"])))  # what of it can be given up
    return free


def _high_water_mark() -> int:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
