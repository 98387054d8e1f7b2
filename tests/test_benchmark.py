"""A whole run through the command line: what it prints, what it leaves, and what its numbers are worth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
from tiny_runs import inlay, record

from inlay.tuner import base as bases
from inlay.tuner.environment import describe

FILES = {"recipe.yaml", "run.json", "train.jsonl", "predictions.jsonl", "adapter", "report.html"}
CASES = [
    *[("lora", task) for task in ("classification", "summarization", "dialogue")],
    ("prefix", "classification"),
    ("bottleneck", "summarization"),
    ("full", "dialogue"),
    ("none", "summarization"),
]
SLOW = [
    (method, task)
    for method in ("lora", "prefix", "bottleneck", "full", "none")
    for task in ("classification", "summarization", "dialogue")
    if (method, task) not in CASES
]


@pytest.fixture
def inside(tiny_models, tmp_path, monkeypatch):
    """The current folder, with a tiny base and rows in it."""
    monkeypatch.chdir(tmp_path)
    return tiny_runs.world(tmp_path, tiny_models("llama"))


@pytest.mark.parametrize(("method", "task"), [*CASES, *[pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]])
def test_a_run_is_complete_and_measured_again_from_disk_gives_the_same_numbers(method, task, inside):
    code, out, err = inlay("run", tiny_runs.recipe(inside, method, task).name)
    assert (code, "Traceback" in err) == (0, False), err
    run = tiny_runs.newest(inside, f"{task}-{method}").relative_to(inside)
    trained = method != "none"
    assert {path.name for path in run.iterdir()} == FILES - (set() if trained else {"train.jsonl"})
    assert out.startswith("run ")
    assert "training 2/2" not in out
    assert ("training 2/2" in err) == trained
    first = record(run)
    assert first["status"] == "complete"
    assert set(first["metrics"]["change"]) == (set(first["metrics"]["tuned"]) if trained else set())
    assert first["eval"]["noise"]["dtype"] == "fp32"
    assert first["eval"]["noise"]["rows"] == 6
    assert first["eval"]["noise"]["identical_texts"] == 6
    assert len((run / "predictions.jsonl").read_text().splitlines()) == 6

    page = (run / "report.html").read_bytes()
    assert inlay("report", run)[:2] == (0, out)
    assert (run / "report.html").read_bytes() == page

    code, _, err = inlay("eval", run)
    assert code == 0, err
    again = tiny_runs.newest(inside, "eval-")
    second = record(again)
    assert second["metrics"] == first["metrics"]
    assert second["base"] == first["base"]
    assert second["eval"]["tokens_scored"] == first["eval"]["tokens_scored"]
    assert (again / "predictions.jsonl").read_bytes() == (run / "predictions.jsonl").read_bytes()


@pytest.mark.parametrize("task", ["classification", "summarization"])
def test_s40_the_base_row_is_the_untouched_model(task, inside):
    """Bit for bit the same numbers, whichever adapter was there and disabled."""
    lines = {}
    for method in ("lora", "prefix", "full"):
        assert inlay("run", tiny_runs.recipe(inside, method, task).name)[0] == 0
        lines[method] = _predictions(tiny_runs.newest(inside, f"{task}-{method}"))
    assert inlay("eval", "./base", "--recipe", f"{task}-lora.yaml")[0] == 0
    untouched = _predictions(tiny_runs.newest(inside, "eval-"))
    for method, rows in lines.items():
        for row, alone in zip(rows, untouched, strict=True):
            assert row["base_scores"] == alone["base_scores"], method
            assert row["base_prediction"] == alone["base_prediction"], method
        assert any(row["scores"] != row["base_scores"] for row in rows), "training must have changed something"


def _predictions(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]


def test_s24_the_noise_of_bf16_is_recorded(inside):
    assert inlay("run", tiny_runs.recipe(inside, "lora", "summarization", bits=16).name)[0] == 0
    noise = record(tiny_runs.newest(inside, "summarization"))["eval"]["noise"]
    assert noise["dtype"] == "bf16"
    assert noise["nll_relative"] > 0


@pytest.mark.parametrize(
    ("method", "adapter", "overrides", "words"),
    [
        ("prefix", {}, ["train.gradient_checkpointing=true"], "train.gradient_checkpointing: false"),
        ("lora", {"target_modules": ["q_proj", "v_prooj"]}, [], "did you mean `v_proj`?"),
        ("lora", {}, ["train.max_length=4096"], "context of 256 tokens"),
        ("prefix", {}, ["train.max_length=256"], "set it to 252 or less"),
    ],
)
def test_f18_a_misfit_is_refused_before_weights_are_loaded(method, adapter, overrides, words, inside, monkeypatch):
    monkeypatch.setattr(bases, "open_base", lambda *_, **__: pytest.fail("weights were loaded"))
    path = tiny_runs.recipe(inside, method, "classification", **adapter)
    code, out, err = inlay("run", path.name, *[part for pair in overrides for part in ("--set", pair)])
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("error:") == 1
    assert not (inside / "runs").exists()


def test_a_run_in_a_process_of_its_own(inside):
    """stdout is the table alone; stderr the progress; nothing is asked; and no library says a word."""
    path = tiny_runs.recipe(inside, "lora", "classification")
    done = subprocess.run(
        [sys.executable, "-m", "inlay.tuner", "run", path.name],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "CI": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run ")
    lines = done.stderr.splitlines()
    known = ("base ", "data ", "memory ", "adapter ", "warning ", "training ", "tuned: ", "base: ")
    assert [line for line in lines if not line.startswith(known)] == []
    assert any(line.startswith("training 2/2") for line in lines)


def test_the_commit_is_that_of_the_folder(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    git = tmp_path / "work" / ".git"
    inner = tmp_path / "work" / "deep"
    inner.mkdir(parents=True)
    git.mkdir()
    monkeypatch.chdir(inner)
    assert describe("cpu").git is None
    (git / "HEAD").write_text(f"{commit}\n")
    assert describe("cpu").git == commit
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert describe("cpu").git is None
    packed = f"# pack-refs with: peeled\n{commit[::-1]} refs/heads/other\n{commit} refs/heads/main\n"
    (git / "packed-refs").write_text(packed)
    assert describe("cpu").git == commit
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "refs" / "heads" / "main").write_text(f"{commit[::-1]}\n")
    assert describe("cpu").git == commit[::-1]
    (tmp_path / "secret").write_text("a word that no record should hold")
    (git / "HEAD").write_text("ref: ../../secret\n")
    assert describe("cpu").git is None
