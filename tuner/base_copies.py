"""4-bit copies of large bases, kept on this disk: to read one takes a fraction of the time that quantizing takes again.

A copy holds the very bits that were quantized here. Its name is made of all that they depend on, and what its files
should hash to stands beside them: one that is damaged, or of another version, is as if it were not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.tuner.model_files import ModelFiles, checked
from inlay.tuner.quantization import Quantization

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEAST_BYTES = 10**9  # of the plain files; what is smaller is quantized in seconds
MARK = "copy.json"
DRAFT = ".draft-"
STALE_SECONDS = 24 * 3600  # after which a draft is what a killed process left


def place() -> Path:
    """The folder of all copies: `$INLAY_CACHE/bases`, by default in the user's cache folder."""
    own = os.environ.get("INLAY_CACHE")
    if own:
        return Path(own).expanduser() / "bases"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "inlay" / "bases"


def kept() -> list[Path]:
    """The folders of all copies."""
    return sorted(path.parent for path in place().glob(f"[!.]*/{MARK}"))


@dataclass(frozen=True)
class Copy:
    """The place of one base's copy, whether it is there or not."""

    files: ModelFiles
    folder: Path

    def open(self) -> ModelFiles | None:
        """The files of the copy, none of the tokenizer's among them; None where there is none, or a damaged one."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            hashes = json.loads((self.folder / MARK).read_text(encoding="utf-8"))["files"]
            if hashes == _hashes(self.folder):
                return checked(self.files.name, self.folder, self.files.revision, tokenizer=False)
        return None

    def keep(self, model: PreTrainedModel) -> None:
        """Writes the copy, where there is room for it; nothing depends on whether it can be written.

        Args:
            model: as it was quantized, nothing in it changed.
        """
        with contextlib.suppress(OSError):
            parent = self.folder.parent
            parent.mkdir(parents=True, exist_ok=True)
            for draft in parent.glob(f"{DRAFT}*"):
                if time.time() - draft.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(draft, ignore_errors=True)
            if shutil.disk_usage(parent).free < 2 * sum(path.stat().st_size for path in self.files.weights):
                return
            draft = Path(tempfile.mkdtemp(dir=parent, prefix=DRAFT))
            try:
                model.save_pretrained(draft)
                (draft / MARK).write_text(json.dumps({"base": self.files.name, "files": _hashes(draft)}))
                shutil.rmtree(self.folder, ignore_errors=True)
                draft.rename(self.folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)


def copy_of(files: ModelFiles, sha256: str, quantization: Quantization, dtype: str, device: str) -> Copy | None:
    """Where the copy of a base belongs; None where none is worth keeping.

    Args:
        sha256: of the plain files.
        dtype: what the weights are quantized from.
        device: where they are.
    """
    plain = files.stored is None and quantization.bits == 4
    if not plain or sum(path.stat().st_size for path in files.weights) < LEAST_BYTES:
        return None
    held = {**asdict(quantization), "compute_dtype": dtype}
    versions = {name: version(name) for name in ("bitsandbytes", "transformers", "torch")}
    key = json.dumps([sha256, held, device.partition(":")[0], versions], sort_keys=True)
    return Copy(files, place() / hashlib.sha256(key.encode()).hexdigest()[:32])


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name != MARK:
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
