"""Runs that end early, and runs that are asked for twice: what is on disk says what happened, and nothing is lost.

Each run is the command line in a process of its own on a tiny model, ended by the signals that Ctrl-C and a batch
system send.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

import inlay
from inlay import adapters
from inlay.tuner import base, model_files
from inlay.tuner import run as runs
from inlay.tuner.problems import AnswerNo, Interrupted, RequestError
from inlay.tuner.records import RunRecord, TrainRow
from inlay.tuner.signals import StopRequest

RECIPE = """\
name: small
base: {model: base, quantization: {bits: 32}}
adapter: {method: lora, r: 4}
task: {type: summarization, data: {train: train.jsonl, test: test.jsonl}}
train: {max_steps: 2, micro_batch_size: 2, log_steps: 1}
eval: {metrics: [empty, perplexity], decoding: {max_new_tokens: 2}}
"""
PROGRAM = "import sys; from inlay.tuner.cli import main; sys.exit(main())"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with a recipe, its base and its rows."""
    monkeypatch.chdir(tmp_path)
    tiny.save(tmp_path / "base", "llama")
    rows = [json.dumps({"document": f"order {i} is late", "summary": f"late {i}"}) + "\n" for i in range(9)]
    (tmp_path / "train.jsonl").write_text("".join(rows[:6]))
    (tmp_path / "test.jsonl").write_text("".join(rows[6:]))
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path


def record(run: Path) -> RunRecord:
    return RunRecord.model_validate_json((run / "run.json").read_text())


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", "small.yaml", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_steps(log: Path, process: subprocess.Popen, steps: int) -> None:
    """Until training has logged so many steps."""
    while not (log.exists() and log.read_text().count("\n") >= steps):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_f8_a_signal_in_training_leaves_a_labelled_run(folder, number, code):
    run = folder / "out"
    process = start(folder, "--set", "train.max_steps=100000", "--output", "out")
    wait_for_steps(run / "train.jsonl", process, 2)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "stopping after this step" in said
    assert "Traceback" not in said
    found = record(run)
    assert found.status == "interrupted"
    assert found.train is not None
    assert f"stopped after step {found.train.steps}" in found.reason
    logged = [TrainRow.model_validate_json(line) for line in (run / "train.jsonl").read_text().splitlines()]
    assert [row.step for row in logged] == list(range(1, found.train.steps + 1))
    assert f"stopped after step {found.train.steps}" in (run / "report.html").read_text()
    assert not (run / "predictions.jsonl").exists()
    method = adapters.find("lora")
    files = model_files.locate(str(folder / "base"))
    facts = base.read_facts(base.read_config(files), 32)
    opened = base.open_base(files, base.Quantization(bits=32), facts, base.read_tokenizer(files))
    loaded = method(method.Options(r=4)).load(run / "adapter", opened.model, facts)
    assert any(tensor.abs().sum() > 0 for name, tensor in loaded.state().items() if "lora_B" in name)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_f8_the_first_signal_waits_for_the_step_and_the_second_does_not(number, code):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        stop.deferred = True
        os.kill(os.getpid(), number)
        assert stop.asked
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), number)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == before
    with StopRequest(), pytest.raises(Interrupted) as caught:  # nothing to wait for
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code


def test_f8_a_second_signal_leaves_a_labelled_run(folder, monkeypatch):
    def be_stopped(*arguments, stop: StopRequest, **options):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(runs, "train", be_stopped)
    with pytest.raises(Interrupted) as caught:
        inlay.run("small.yaml", output="out")
    assert caught.value.exit_code == 143
    assert (record(folder / "out").status, record(folder / "out").reason) == ("interrupted", "stopped by SIGTERM")


def test_a_run_that_fails_says_so_with_the_reason(folder, monkeypatch):
    def diverge(*arguments, **options):
        raise AnswerNo("training diverged: the loss is not finite at step 3")

    monkeypatch.setattr(runs, "train", diverge)
    with pytest.raises(AnswerNo):
        inlay.run("small.yaml", output="out")
    found = record(folder / "out")
    assert (found.status, found.reason) == ("failed", "training diverged: the loss is not finite at step 3")
    assert found.base is not None
    assert "not finite at step 3" in (folder / "out" / "report.html").read_text()


def test_a_bug_is_labelled_too(folder, monkeypatch):
    def break_down(*arguments, **options):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(runs.benchmark, "measure", break_down)
    with pytest.raises(ZeroDivisionError):
        inlay.run("small.yaml", output="out")
    found = record(folder / "out")
    assert (found.status, found.reason) == ("failed", "ZeroDivisionError: division by zero")
    assert found.train is not None
    assert (folder / "out" / "adapter").is_dir()


def test_s15_divergence_stops_the_run_with_1(folder, monkeypatch):
    train = runs.train

    def poisoned(adapted, *arguments, **options):
        steps = iter(range(100))
        parameter = next(p for p in adapted.model.parameters() if p.requires_grad)
        parameter.register_hook(lambda grad: grad * math.nan if next(steps) == 2 else grad)
        return train(adapted, *arguments, **options)

    monkeypatch.setattr(runs, "train", poisoned)
    with pytest.raises(AnswerNo) as caught:
        inlay.run("small.yaml", overrides=["train.max_steps=9"], output="out")
    assert caught.value.exit_code == 1
    found = record(folder / "out")
    assert found.status == "failed"
    assert "training diverged: the gradient is not finite at step 3 on rows " in found.reason
    losses = [json.loads(line)["loss"] for line in (folder / "out" / "train.jsonl").read_text().splitlines()]
    assert len(losses) == 2
    assert min(losses) > 0


def test_f9_a_run_is_done_once_and_never_overwritten(folder, capfd):
    first = inlay.run("small.yaml")
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert record(first).status == "complete"
    assert inlay.run("small.yaml") == first
    assert "this recipe is done already" in capfd.readouterr().err
    second = inlay.run("small.yaml", again=True)
    assert second.name == f"{first.name}-2"
    assert inlay.run("small.yaml") == second
    other = inlay.run("small.yaml", overrides=["seed=1"])
    assert other not in (first, second)
    for taken in (first, second, folder / "base"):
        with pytest.raises(RequestError, match="nothing is overwritten"):
            inlay.run("small.yaml", output=taken, again=True)
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    losses = [(run / "train.jsonl").read_text().splitlines() for run in (first, second)]
    timeless = [[{**json.loads(line), "seconds": 0} for line in lines] for lines in losses]
    assert timeless[0] == timeless[1]
    assert (first / "predictions.jsonl").read_bytes() == (second / "predictions.jsonl").read_bytes()


def test_an_unfinished_run_is_not_done(folder):
    first = inlay.run("small.yaml")
    content = json.loads((first / "run.json").read_text())
    (first / "run.json").write_text(json.dumps({**content, "status": "interrupted"}))
    second = inlay.run("small.yaml")
    assert second != first
    assert record(second).status == "complete"
