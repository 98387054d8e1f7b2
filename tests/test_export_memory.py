"""What an export keeps in memory and where it computes, and how a process that ran out of either is told."""

from __future__ import annotations

import json
import subprocess

import pytest

from inlay.tuner.export import fresh_process, gguf_check
from inlay.tuner.export.gguf import write_gguf
from inlay.tuner.export.gguf_check import check_gguf
from inlay.tuner.problems import MachineError

PROMPTS = [list(range(3, 40)), [5] * 70, [9]]


def test_logits_are_compared_as_far_as_they_fit_in_memory(tiny_models, tmp_path, monkeypatch):
    """At the end of each prompt, where all of it has been read."""
    folder = tiny_models("llama")
    file = write_gguf(folder, tmp_path / "m.gguf", "f16", template=None).file
    whole = check_gguf(file, folder, PROMPTS, template=None)
    row = 4 * json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    monkeypatch.setattr(gguf_check, "LOGIT_BYTES", len(PROMPTS) * 2 * row)
    found = check_gguf(file, folder, PROMPTS, template=None)
    assert found.tokens == sum(min(2, len(prompt)) for prompt in PROMPTS)
    assert 0 < found.largest <= whole.largest
    assert found.same_replies == whole.same_replies


def test_a_process_that_the_kernel_kills_is_the_machines_failure(monkeypatch):
    run = subprocess.run

    def killed(command, **options):
        return run(["sh", "-c", "kill -9 $$"], **options)

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(MachineError, match="ran out of memory, or was killed"):
        fresh_process.run_fresh("inlay.tuner.export.gguf_check", failed="the GGUF file cannot be read back")
