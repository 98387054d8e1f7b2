"""A process that knows nothing but transformers, and answers for exported folders, one after the other.

Each line in names an export's folder, a safetensors file with a batch, and a file to write its logits to. Each line out
is `done`, or what is wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


class Stranger:
    """That process; open as long as a test session."""

    def __init__(self) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def logits(self, export: Path, batch: dict[str, torch.Tensor], place: Path) -> torch.Tensor:
        """Of the exported model, opened from its folder; `place` is an empty folder to exchange tensors in."""
        save_file({name: tensor.clone() for name, tensor in batch.items()}, place / "batch")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(export, place / "batch", place / "logits", sep="\t", file=self._process.stdin, flush=True)
        said = self._process.stdout.readline().strip()
        assert said == "done", said
        return load_file(place / "logits")["logits"]

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


def answer(export: str, batch: str, written: str) -> str:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = AutoModelForSeq2SeqLM if AutoConfig.from_pretrained(export).is_encoder_decoder else AutoModelForCausalLM
    model, info = kind.from_pretrained(export, dtype="auto", use_safetensors=True, output_loading_info=True)
    if wrong := {name: list(keys) for name, keys in info.items() if keys}:
        return f"does not load cleanly: {wrong}"
    with torch.no_grad():
        save_file({"logits": model.eval()(**load_file(batch)).logits}, written)
    known = [name for name in ("inlay", "peft", "bitsandbytes") if name in sys.modules]
    return f"knows {known}" if known else "done"


def main() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    for line in sys.stdin:
        print(answer(*line.rstrip("\n").split("\t")), flush=True)


if __name__ == "__main__":
    main()
