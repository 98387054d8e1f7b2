"""Where a run took place: versions, device, threads, and the commit of the folder it was started in."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from pathlib import Path

import inlay
from inlay.tuner.records import Environment

COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
PACKAGES = (
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

    versions = {"inlay": inlay.__version__}
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
    git = next((parent / ".git" for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)
    if git is None:
        return None
    head = _read(git / "HEAD")
    if not head.startswith("ref: "):
        return _hash(head)
    reference = head.removeprefix("ref: ").strip()
    packed = (line.split() for line in _read(git / "packed-refs").splitlines())
    known = {words[1]: words[0] for words in packed if len(words) == 2}
    return _hash(_read(git / reference)) or _hash(known.get(reference, ""))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _hash(text: str) -> str | None:
    """`text` if it is a commit; whatever else stands in the file is not recorded."""
    return text.strip() if COMMIT.fullmatch(text.strip()) else None
