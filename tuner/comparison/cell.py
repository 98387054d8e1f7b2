"""One cell of a comparison, a row with a seed: a run's folder like any other, made on the shared base."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from inlay.tuner.benchmark import Untouched
from inlay.tuner.comparison.bench import Bench
from inlay.tuner.console import Progressing
from inlay.tuner.environment import describe
from inlay.tuner.problems import RequestError
from inlay.tuner.recipe import Recipe, recipe_hash, resolved_yaml
from inlay.tuner.records import RunRecord
from inlay.tuner.report import read_record, write_page
from inlay.tuner.run import (
    base_record,
    begin,
    labelled,
    train_adapter,
    train_and_measure,
    train_record,
    validation,
)
from inlay.tuner.run_directory import RunDirectory
from inlay.tuner.setting import Setting
from inlay.tuner.signals import StopRequest

# Given the measured values of a validation and its number, from 1: stop this trial as a poor one?
Judge = Callable[[Mapping[str, float], int], bool]


def finished(path: Path) -> RunRecord | None:
    """The record of a cell that needs nothing more: complete, or failed for a reason of its own."""
    try:
        record = read_record(path)
    except RequestError:
        return None
    return record if record.status in ("complete", "failed") else None


def measure_base(bench: Bench, path: Path, command: str, show: Progressing, stop: StopRequest) -> None:
    """Measures the untouched base, with examples in context too where its recipe asks for them."""
    setting = bench.setting
    with _cell(bench, setting, path, command, show) as folder:
        with bench.adapted(setting) as adapted:
            train_and_measure(setting, folder, bench.base, adapted, show=show, stop=stop)
            latency = bench.latency(setting, adapted)
        _update_eval(folder, latency_seconds=latency, merged_latency_seconds=bench.merged_latency())


def measure_row(
    bench: Bench, setting: Setting, path: Path, command: str, known: Untouched, show: Progressing, stop: StopRequest
) -> None:
    """Trains one row with one seed and measures it; the base's part is `known`.

    Raises:
        Failure: training or the benchmark went wrong; the folder says so.
        Interrupted: stopped by a signal.
    """
    with (
        _cell(bench, setting, path, command, show) as folder,
        bench.adapted(setting) as adapted,
    ):
        train_and_measure(setting, folder, bench.base, adapted, show=show, stop=stop, known=known)
        assert folder.record.adapter is not None
        folder.update(
            adapter=folder.record.adapter.model_copy(update={"extra_base_bytes": bench.extra_bytes}),
            outside=bench.outside(setting, adapted),
        )
        _update_eval(folder, latency_seconds=bench.latency(setting, adapted))


def try_values(
    bench: Bench, setting: Setting, path: Path, command: str, judge: Judge, show: Progressing, stop: StopRequest
) -> None:
    """One trial of the search: trains and validates, and saves no adapter. Every validation stands in its train.jsonl.

    Raises:
        Failure: training went wrong; the folder says so.
        Interrupted: stopped by a signal.
    """
    with (
        _cell(bench, setting, path, command, show) as folder,
        bench.adapted(setting) as adapted,
    ):
        checked = validation(setting, bench.base, adapted)
        assert checked is not None
        trained = train_adapter(setting, folder, bench.base, adapted, replace(checked, poor=judge), show, stop)
        folder.update(train=train_record(setting, trained))
        if stop.asked:
            raise stop.stopped("stopped in a trial of the search, which begins anew")


@contextlib.contextmanager
def _cell(bench: Bench, setting: Setting, path: Path, command: str, show: Progressing) -> Iterator[RunDirectory]:
    """A run's folder; what an earlier, interrupted attempt left in it goes."""
    started = time.time()
    recipe = setting.recipe
    shutil.rmtree(path, ignore_errors=True)
    folder = RunDirectory.create(path, _begin(path, recipe, command), resolved_yaml(recipe))
    with labelled(folder, started, show):
        folder.update(
            base=base_record(setting, bench.base),
            data=setting.data.record,
            environment=describe(bench.base.device),
        )
        yield folder
        folder.update(status="complete", seconds=time.time() - started)
    write_page(folder.path)


def _begin(path: Path, recipe: Recipe, command: str) -> RunRecord:
    """As a run begins, with the comparison in its name: all comparisons call their cells alike."""
    record = begin(path, recipe, recipe_hash(recipe), command)
    return record.model_copy(update={"id": f"{path.parent.parent.name}/{path.name}"})


def _update_eval(folder: RunDirectory, **seconds: float | None) -> None:
    """What a comparison measures beyond a run."""
    assert folder.record.eval is not None
    folder.update(eval=folder.record.eval.model_copy(update=seconds))
