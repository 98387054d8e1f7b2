"""A comparison that is killed and asked for again ends where one that was never killed ends, bit for bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import comparisons
import pytest
from comparisons import row, spec
from tiny_runs import inlay

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


@pytest.fixture
def folder(tmp_path, tiny_models, monkeypatch):
    """A comparison with a search in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
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
    return tmp_path


def finish(output):
    """Asks once more, in this process."""
    code, _, said = inlay("compare", "spec.yaml", "--output", output)
    assert code == 0, said


def test_f1_killed_and_asked_again_ends_the_same(folder):
    process = start(folder, "killed")
    while len(list((folder / "killed").glob("cells/*/run.json"))) < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert json.loads((folder / "killed" / "comparison.json").read_text())["status"] == "running"
    finish("killed")
    finish("whole")
    assert quality(folder, "killed") == quality(folder, "whole")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_f1_killed_at_twenty_random_moments_ends_the_same(folder):
    finish("whole")
    begun = time.monotonic()
    timed = start(folder, "timed")
    _, said = timed.communicate()
    assert timed.returncode == 0, said
    seconds = time.monotonic() - begun
    draw = random.Random(0)
    killed = 0
    while killed < 20:
        process = start(folder, "killed")
        try:
            # Most of the time goes into starting; what is worth interrupting comes after.
            process.wait(timeout=draw.uniform(0.3, 1.0) * seconds)
            shutil.rmtree(folder / "killed")  # it got to its end: once more from the start
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
    finish("killed")
    assert quality(folder, "killed") == quality(folder, "whole")
