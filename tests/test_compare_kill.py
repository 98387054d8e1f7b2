"""A comparison that is killed and asked for again ends where one that was never killed ends, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import comparisons
import pytest
from comparisons import row, spec

PROGRAM = "import sys; from inlay.tuner.cli import main; sys.exit(main())"


def start(folder, output):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "compare", "spec.yaml", "--output", output],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def quality(folder, output):
    """What a comparison found, without what it cost."""
    record = json.loads((folder / output / "comparison.json").read_text())
    assert record["status"] == "complete"
    rows = [
        {key: row[key] for key in ("label", "status", "scores", "trials", "chosen", "forgetting", "tokens_seen")}
        for row in record["rows"]
    ]
    return rows, record["pairs"], record["heading"]


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_f1_killed_at_random_moments_and_asked_again_ends_the_same(tmp_path, tiny_models, kills):
    comparisons.world(tmp_path, tiny_models("llama"))
    rows = (tmp_path / "summarization.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "validation.jsonl").write_text("".join(rows[20:]))
    spec(
        tmp_path,
        row("lora"),
        row("prefix"),
        overrides=["task.data.validation=validation.jsonl", "train.max_steps=4"],
        search={"trials": 2, "space": {"train.learning_rate": {"times": [1, 10]}}},
    )
    begun = time.monotonic()
    whole = start(tmp_path, "whole")
    _, said = whole.communicate()
    assert whole.returncode == 0, said
    seconds = time.monotonic() - begun
    draw = random.Random(0)
    done = 0
    for _ in range(kills):
        process = start(tmp_path, "killed")
        try:
            # Most of the time goes into starting; what is worth interrupting comes after.
            process.wait(timeout=draw.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            done += 1
        process.communicate()
    last = start(tmp_path, "killed")
    _, said = last.communicate()
    assert last.returncode == 0, said
    assert done
    assert quality(tmp_path, "killed") == quality(tmp_path, "whole")
