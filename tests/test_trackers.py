"""Trackers that follow a comparison: every training is a run of its own there, and none is left open.

W&B is a stand-in with the parts that transformers calls; TensorBoard is the real one, read by its own reader.
"""

from __future__ import annotations

import importlib.machinery
import json
import math
import sys
import types
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import comparisons
import pytest
import training_runs
from comparisons import home, row, spec
from tiny_runs import inlay

from inlay.tuner.problems import AnswerNo


class Wandb(types.ModuleType):
    """What W&B's module does with its one open run; `runs` keeps all of them."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.run: SimpleNamespace | None = None
        self.runs: list[SimpleNamespace] = []
        self.config: dict[str, Any] = {}

    def init(self, *, project: str, name: str) -> None:
        assert self.run is None
        self.run = SimpleNamespace(name=name, logged=[], summary={}, exit_code=None, _label=lambda **_: None)
        self.runs.append(self.run)

    def log(self, values: dict[str, float]) -> None:
        self.run.logged.append(values)

    def finish(self, exit_code: int | None = None) -> None:
        self.run.exit_code, self.run = exit_code, None


@pytest.fixture
def wandb(monkeypatch):
    """A W&B that stays on this machine, in place of an installed one."""
    made = Wandb()
    errors = types.ModuleType("wandb.sdk.lib.config_util")
    errors.ConfigError = type("ConfigError", (Exception,), {})
    for name, module in {
        "wandb": made,
        "wandb.sdk": types.ModuleType("wandb.sdk"),
        "wandb.sdk.lib": types.ModuleType("wandb.sdk.lib"),
        errors.__name__: errors,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.fixture
def folder(tmp_path, tiny_models, monkeypatch):
    """A working folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_RUN_ID", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.delenv(name, raising=False)
    return comparisons.world(tmp_path, tiny_models("llama"))


@pytest.fixture
def attach(tiny_models) -> Callable:
    return training_runs.attaching(tiny_models)


def losses(cell) -> list[float]:
    """The logged losses of a cell, a row a step."""
    return [json.loads(line)["loss"] for line in (cell / "train.jsonl").read_text().splitlines()]


def test_each_cell_is_a_run_of_its_own_at_wandb(folder, wandb):
    spec(folder, row("lora"), row("ia3"), overrides=["train.report_to=[wandb]"])
    code, _, err = inlay("compare", "spec.yaml")
    assert code == 0, err
    assert wandb.run is None
    named = {run.name.partition(" ")[0]: run for run in wandb.runs}
    cells = {f"{home(folder).name}/{cell.name}": cell for cell in (home(folder) / "cells").iterdir()}
    assert named.keys() == {name for name in cells if not name.endswith("/base")}
    assert len(wandb.runs) == len(named) == 4
    for name, run in named.items():
        logged = [values["train/loss"] for values in run.logged if "train/loss" in values]
        assert logged == pytest.approx(losses(cells[name]), abs=1e-4)  # transformers logs four digits
        assert run.exit_code == 0


def test_a_training_that_diverges_ends_its_run_at_wandb_as_failed(attach, wandb):
    adapted = attach()
    weight = next(p for p in adapted.model.parameters() if p.requires_grad)
    log = training_runs.Log({2: lambda: weight.data.fill_(math.nan)})
    with pytest.raises(AnswerNo, match="diverged"):
        training_runs.train(adapted, log=log, report_to=["wandb"])
    assert [run.exit_code for run in wandb.runs] == [1]
    assert wandb.run is None


def test_a_run_that_the_caller_opened_at_wandb_stays_open(attach, wandb):
    wandb.init(project="mine", name="mine")
    training_runs.train(attach(), report_to=["wandb"])
    assert [run.name for run in wandb.runs] == ["mine"]
    assert wandb.run is wandb.runs[0]
    assert wandb.run.logged


@pytest.mark.parametrize("name", ["WANDB_RUN_ID", "TENSORBOARD_LOGGING_DIR", ""])
def test_what_would_make_one_run_of_all_cells_is_refused_before_anything_is_loaded(folder, wandb, monkeypatch, name):
    spec(folder, row("lora"), row("ia3"), overrides=["train.report_to=[tensorboard, wandb]"])
    if name:
        monkeypatch.setenv(name, "all")
    else:
        wandb.init(project="mine", name="mine")
    code, _, err = inlay("compare", "spec.yaml")
    assert code == 2
    assert (name or "W&B") in err
    assert "train.report_to" in err
    assert not (folder / "runs").exists()


def test_each_cell_has_its_own_curve_in_tensorboard(folder):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    spec(folder, row("lora"), row("ia3"), seeds=1, overrides=["train.report_to=[tensorboard]"])
    code, _, err = inlay("compare", "spec.yaml")
    assert code == 0, err
    for cell in ("lora-s0", "ia3-s0"):
        path = home(folder) / "cells" / cell
        (events,) = path.rglob("events.out.tfevents.*")
        found = reader.EventAccumulator(str(events.parent)).Reload()
        assert [one.value for one in found.Scalars("train/loss")] == pytest.approx(losses(path), abs=1e-4)
