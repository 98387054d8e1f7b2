"""Where a run took place: versions, device, threads, and the commit of the folder it was started in."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from inlay.tuner.records import Environment

PACKAGES = (
    "inlay",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "evaluate",
    "sacrebleu",
    "rouge-score",
)


def describe(device: str) -> Environment:
    """The environment of a run on `device` (`cpu` or `cuda:N`)."""
    import torch

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return Environment(
        python=platform.python_version(),
        versions=versions,
        platform=f"{platform.system()} {platform.machine()}",
        device=torch.cuda.get_device_name(device) if device != "cpu" else _processor(),
        threads=torch.get_num_threads(),
        git=_commit(Path.cwd()),
    )


def _processor() -> str:
    """The processor's name, and the one feature that changes which kernels run on it."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    name = fields.get("model name", platform.machine())
    return f"{name} (avx512_bf16)" if "avx512_bf16" in fields.get("flags", "").split() else name


def _commit(folder: Path) -> str | None:
    """The checked-out commit of the git repository around `folder`; git itself is not run."""
    for parent in (folder, *folder.parents):
        head = parent / ".git" / "HEAD"
        if not head.is_file():
            continue
        text = head.read_text().strip()
        if not text.startswith("ref: "):
            return text
        reference = parent / ".git" / text.removeprefix("ref: ")
        return reference.read_text().strip() if reference.is_file() else None
    return None
