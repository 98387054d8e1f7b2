"""`inlay doctor`: what works on this machine, grouped by what one can do with it, and how to get the rest.

Versions come from package metadata; torch is the only library that is imported, to ask it for devices.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata

from inlay.tuner import base_copies
from inlay.tuner.problems import Problem

_PYTHON = (3, 11)


@dataclass(frozen=True)
class Library:
    """A distribution, the versions that work, and the module it brings."""

    name: str
    versions: str
    module: str = ""

    def installed(self) -> str | None:
        """The installed version, or None."""
        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return None

    def fits(self, version: str) -> bool:
        """Whether `version` is one that works; only numbers are compared."""
        found = _numbers(version)
        for sign, bound in re.findall(r"(>=|<)([\d.]+)", self.versions):
            if (found < _numbers(bound)) == (sign == ">="):
                return False
        return True


@dataclass(frozen=True)
class Group:
    """What one can do with some libraries. `core`: inlay is of no use without it; `extra`: how pip calls it."""

    purpose: str
    libraries: tuple[Library, ...]
    core: bool = True
    extra: str = ""

    def install(self) -> str:
        """The command that gets what is missing."""
        if self.extra:
            return f'pip install "inlay[{self.extra}]"'
        wanted = [library for library in self.libraries if not _works(library)]
        return "pip install " + " ".join(f'"{library.name}{library.versions}"' for library in wanted)


GROUPS = (
    Group(
        "train and measure",
        (
            Library("torch", ">=2.11,<2.14"),
            Library("transformers", ">=5.17,<6"),
            Library("accelerate", ">=1.15"),
            Library("peft", ">=0.21,<0.22"),
            Library("safetensors", ">=0.6"),
            Library("huggingface-hub", ">=1.0", "huggingface_hub"),
            Library("numpy", ">=2.0"),
        ),
    ),
    Group("hold a base in 4 or 8 bits", (Library("bitsandbytes", ">=0.50,<0.51"),)),
    Group("read Parquet and hub data", (Library("pyarrow", ">=18.0"), Library("datasets", ">=4.0"))),
    Group(
        "score text",
        (
            Library("evaluate", ">=0.4.5"),
            Library("sacrebleu", ">=2.6"),
            Library("rouge-score", ">=0.1.2", "rouge_score"),
        ),
    ),
    Group("compare methods", (Library("scipy", ">=1.15"), Library("optuna", ">=4.5"))),
    Group(
        "read recipes, draw pages",
        (
            Library("pydantic", ">=2.11"),
            Library("pydantic-core", ">=2.33", "pydantic_core"),
            Library("PyYAML", ">=6.0", "yaml"),
            Library("jinja2", ">=3.1"),
            Library("markupsafe", ">=2.1"),
            Library("rich", ">=14.0"),
            Library("matplotlib", ">=3.9"),
        ),
    ),
    Group("write GGUF files", (Library("gguf", ">=0.18"),), core=False, extra="gguf"),
    Group("serve", (Library("fastapi", ">=0.115"), Library("uvicorn", ">=0.34")), core=False, extra="serve"),
    Group("BLEU of Japanese", (Library("mecab-python3", ""), Library("ipadic", "")), core=False, extra="ja"),
    Group("follow runs in TensorBoard", (Library("tensorboard", ">=2.20"),), core=False, extra="tensorboard"),
    Group("follow runs in Weights & Biases", (Library("wandb", ">=0.20"),), core=False, extra="wandb"),
    Group("follow runs in trackio", (Library("trackio", ">=0.2"),), core=False, extra="trackio"),
)


def examine() -> tuple[str, bool]:
    """The report, and whether all core parts are there."""
    from inlay import __version__

    healthy = sys.version_info >= _PYTHON
    lines = [f"inlay {__version__}   Python {platform.python_version()}   {platform.system()} {platform.machine()}"]
    if not healthy:
        lines.append(f"inlay needs Python {_PYTHON[0]}.{_PYTHON[1]} or newer")
    width = max(len(group.purpose) for group in GROUPS)
    for group in GROUPS:
        works = all(_works(library) for library in group.libraries)
        healthy = healthy and (works or not group.core)
        lines.append(f"{group.purpose:{width}}  {'yes' if works else 'no '}  {_versions(group)}")
        if not works:
            lines.append(f"{'':{width}}       {group.install()}")
    lines += ["", *_machine()]
    return "\n".join(lines), healthy


def missing_library(error: ImportError) -> Problem | None:
    """How to get the library whose import failed; None where it is none of ours."""
    root = (error.name or "").partition(".")[0]
    for group in GROUPS:
        for library in group.libraries:
            if root and root in (library.module or library.name, library.name):
                return _absent(library, group, error)
    return None


def _absent(library: Library, group: Group, error: ImportError) -> Problem:
    found = library.installed()
    if found is None:
        return Problem(f"{library.name} is not installed", help=f"{group.install()}   (`inlay doctor` shows the rest)")
    first = (str(error).splitlines() or [type(error).__name__])[0]
    message = f"{library.name} {found} does not work here: {first}"
    return Problem(message, help=f'pip install --force-reinstall "{library.name}{library.versions}"')


def _works(library: Library) -> bool:
    version = library.installed()
    return version is not None and library.fits(version)


def _versions(group: Group) -> str:
    parts = []
    for library in group.libraries:
        version = library.installed()
        fits = version is not None and library.fits(version)
        parts.append(f"{library.name} {version or 'missing'}" + ("" if fits or version is None else " (wrong version)"))
    return ", ".join(parts)


def _numbers(version: str) -> tuple[int, ...]:
    """`2.13.0+cpu` -> (2, 13): compared without trailing zeros, and without what follows a `+`."""
    release = re.match(r"[\d.]*", version)
    numbers = [int(part) for part in (release.group() if release else "").split(".") if part]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _machine() -> list[str]:
    free = shutil.disk_usage(".").free
    lines = [f"processors  {os.cpu_count()}, memory {_memory()}, {free / 1e9:.1f} GB free on this disk"]
    if kept := base_copies.kept():
        total = sum(path.stat().st_size for copy in kept for path in copy.iterdir())
        told = f"{len(kept)} kept, {total / 1e9:.1f} GB in {base_copies.place()}; they may be deleted"
        lines.append(f"4-bit bases {told}")
    try:
        import torch
    except (ImportError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return [*lines, f"devices     unknown: torch cannot be imported ({first})"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            lines.append(f"cuda:{index}      {properties.name}, {properties.total_memory / 1e9:.1f} GB")
    else:
        built = torch.version.cuda
        why = f"torch is built for CUDA {built}, but finds no device" if built else "this torch is built for the CPU"
        lines.append(f"cuda        none: {why}")
    return lines


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB"
    except (AttributeError, ValueError, OSError):  # not told on this system
        return "unknown"
