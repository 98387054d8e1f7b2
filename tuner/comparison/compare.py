"""`inlay compare`: every row with every seed on one base, which is opened once; what is finished is never lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from inlay.eval.metrics import find as find_metric
from inlay.tuner.comparison import store
from inlay.tuner.comparison.bench import Bench, read_texts
from inlay.tuner.comparison.cell import finished, measure_base, measure_row, try_values
from inlay.tuner.comparison.evidence import untouched
from inlay.tuner.comparison.inputs import Course
from inlay.tuner.comparison.live import Board
from inlay.tuner.comparison.outcome import BASE_CELL, cell_of, record_of
from inlay.tuner.comparison.page import write_pages
from inlay.tuner.comparison.plan import Plan, PlannedRow
from inlay.tuner.comparison.power import foreseen
from inlay.tuner.comparison.prepare import LOSS, Ready, prepare
from inlay.tuner.comparison.records import ComparisonRecord, TrialRecord
from inlay.tuner.comparison.search import VALIDATIONS, RowSearch
from inlay.tuner.console import hushed
from inlay.tuner.problems import Failure, Interrupted
from inlay.tuner.records import RunRecord
from inlay.tuner.report.figures import plain
from inlay.tuner.report.files import read_run
from inlay.tuner.report.scores import score_name
from inlay.tuner.setting import Setting
from inlay.tuner.signals import StopRequest

TEXTS = 16  # outside the task, at most


def compare(plan: Plan, *, output: Path | None, again: bool, command: str) -> Path:
    """Runs what is not done yet of a comparison, and writes its folder.

    Args:
        output: the folder; by default `runs/<name>-<hash>`.
        again: start anew even if the same comparison was begun or done.
        command: what the user typed, for the record.

    Returns:
        The folder.

    Raises:
        Failure: nothing could be compared; or base or data are no longer what the comparison was begun with.
        Interrupted: stopped by a signal; the same command goes on.
    """
    folder, begun = store.folder_of(plan, output, again=again)
    if begun is not None:
        store.require_same_inputs(begun, plan.rows[0].recipe, folder)
    with hushed(), StopRequest() as stop:
        _Work(prepare(plan), folder, begun, command, stop).run()
    return folder


class _Work:
    """One attempt at a comparison, from where the one before it ended."""

    def __init__(
        self, ready: Ready, folder: Path, begun: ComparisonRecord | None, command: str, stop: StopRequest
    ) -> None:
        self.ready, self.plan, self.folder, self.stop = ready, ready.plan, folder, stop
        self.course = Course(
            created=begun.created if begun else datetime.now(UTC).isoformat(timespec="seconds"),
            command=begun.command if begun else command,
        )
        self.command = command
        self.before = begun.seconds if begun else 0.0
        self.started = time.time()
        self.rows: dict[str, PlannedRow] = {row.slug: row for row in self.plan.rows}
        self.searches = {row.slug: self._search_of(row) for row in ready.searched}
        labels = [row.label for row in ready.trained]
        self.board = Board(self.plan.name, score_name(ready.score), ["base", *labels], self.plan.seeds)
        self._bench: Bench | None = None

    def run(self) -> None:
        """Everything, from the announcement to the pages."""
        self.board.note(self._announcement())
        self._write("running")
        try:
            with self.board:
                self.board.plan(self._todo())
                self._measure_base()
                for row in self.ready.searched:
                    self._search(row)
                for seed in self.plan.seeds:
                    for row in self.ready.trained:
                        if row.slug not in self.course.given_up:
                            self._measure(row, seed)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            reason = error.problems[0].message if isinstance(error, Failure) else str(error).partition("\n")[0]
            self._write("interrupted" if stopped else "failed", reason)
            if isinstance(error, Interrupted):
                raise Interrupted(f"{error}; the same command goes on from here", error.exit_code) from error
            raise
        self._write("complete")
        write_pages(self.folder)

    def _write(self, status: str, reason: str = "") -> None:
        self.course.status, self.course.reason = status, reason
        self.course.seconds = self.before + time.time() - self.started
        store.write_comparison(self.folder, record_of(self.ready, self.folder, self.course))

    def _announcement(self) -> str:
        record, setting = self.ready.base.data.record, self.ready.base
        rows = "  ".join(f"{split} {n:,}" for split, n in record.rows.items())
        seeds = len(self.plan.seeds)
        methods = sum(row.kind == "method" for row in self.ready.trained)
        lines = [
            f"base     {setting.files.name}, {setting.facts.parameters:,} weights, {setting.quantization}",
            f"data     {rows}  trained tokens {record.trained_tokens:,}",
            f"compare  {methods} method{'s' * (methods != 1)} x {seeds} seed{'s' * (seeds != 1)}",
            *(f"refused  {self.rows[slug].label}: {reason}" for slug, reason in self.ready.refused.items()),
        ]
        return "\n".join(lines)

    def _todo(self) -> int:
        """Trials and cells that are not finished."""
        trials = [self._trial(slug, n) for slug, search in self.searches.items() for n in range(search.wanted)]
        cells = [cell_of(self.folder, row, seed) for row in self.ready.trained for seed in self.plan.seeds]
        return sum(finished(path) is None for path in (*trials, *cells)) + (not self._base_is_done())

    def _base_is_done(self) -> bool:
        """Without the base nothing can be compared, so where it failed it is measured again."""
        record = finished(self.folder / BASE_CELL)
        return record is not None and record.status == "complete"

    def _trial(self, slug: str, number: int) -> Path:
        return self.folder / "trials" / f"{slug}-t{number}"

    @property
    def bench(self) -> Bench:
        """The base, opened when the first piece of work needs it."""
        if self._bench is None:
            embedded = resources.files("inlay.recipes") / "embedded" / "data" / "language_modeling-validation.jsonl"
            texts = read_texts(self.plan.outside or Path(str(embedded)))
            self._bench = Bench(self.ready.base, texts[:TEXTS])
        return self._bench

    def _measure_base(self) -> None:
        path = self.folder / BASE_CELL
        worked = not self._base_is_done()
        if worked:
            self.board.begin("base")
            measure_base(self.bench, path, self.command, self.board, self.stop)
        self.known = replace(untouched(path, self.ready.base.metrics), few_shot=None)
        self.board.put("base", self.plan.seeds[0], plain(self.known.base.scores[self.ready.score].value), worked=worked)
        self.board.note(foreseen(self.ready, self.known.base.records))

    def _measure(self, row: PlannedRow, seed: int) -> None:
        path = cell_of(self.folder, row, seed)
        record = finished(path)
        worked = record is None
        if worked:
            self.board.begin(f"{row.label}, seed {seed}")
            chosen = self.course.chosen.get(row.slug, {})
            setting = self.ready.base.adapted_as(row.with_values(chosen, path.name, seed))
            # A processor that is out of memory says so with a plain RuntimeError.
            with contextlib.suppress(Failure, RuntimeError):
                measure_row(self.bench, setting, path, self.command, self.known, self.board, self.stop)
            record = finished(path)
            if record and record.status == "failed":
                self.board.note(f"failed   {row.label}, seed {seed}: {record.reason}")
            self._write("running")
        shown = record and record.metrics and record.metrics.tuned.get(self.ready.score)
        self.board.put(row.label, seed, plain(shown.value) if shown else "failed", worked=worked)

    def _search_of(self, row: PlannedRow) -> RowSearch:
        assert self.plan.search is not None
        objective = self.plan.search.objective
        higher = objective != LOSS and bool(find_metric(objective).higher_is_better)
        return RowSearch(self.plan.search, row.label, self.ready.settings[row.slug].method.learning_rate, higher)

    def _search(self, row: PlannedRow) -> None:
        """The trials of one row, and the values that its cells will have."""
        search = self.searches[row.slug]
        for number in range(search.wanted):
            values = search.propose()
            path = self._trial(row.slug, number)
            record = finished(path)
            if record is None:
                self.board.begin(f"{row.label}, trial {number + 1} of {search.wanted}: {_told(values)}")
                self._try(row, values, path, search)
                record = finished(path)
                assert record is not None
                trial, course = self._outcome(path, record, values)
                self.board.end(f"{row.label}, {_told(values)}: {_told_objective(trial)}")
            else:
                trial, course = self._outcome(path, record, values)
            search.add(trial, course)
        best = search.best()
        self.course.trials[row.slug] = list(search.trials)
        if best is None:
            self.course.given_up[row.slug] = f"none of {search.wanted} trials of its search ended with a finite loss"
            return
        self.course.chosen[row.slug] = best.values
        self.course.at_edge[row.slug] = search.at_edge(best)
        self._write("running")

    def _try(self, row: PlannedRow, values: Mapping[str, Any], path: Path, search: RowSearch) -> None:
        recipe = row.with_values(values, path.name, self.plan.seeds[0])
        setting = self._validated(self.ready.base.adapted_as(recipe))
        name = self._objective()

        def judge(measured: Mapping[str, float], count: int) -> bool:
            return search.is_poor(measured[name], count)

        with contextlib.suppress(Failure, RuntimeError):
            try_values(self.bench, setting, path, self.command, judge, self.board, self.stop)

    def _objective(self) -> str:
        """What a trial's validation is judged by, as it is named in the log."""
        assert self.plan.search is not None
        objective = self.plan.search.objective
        return objective if objective == LOSS else find_metric(objective).scores[0]

    def _validated(self, setting: Setting) -> Setting:
        """The setting of a trial: validated as it trains, and not stopped by its own patience."""
        assert self.plan.search is not None
        train, objective = setting.recipe.train, self.plan.search.objective
        changed = train.model_copy(
            update={
                "eval_steps": train.eval_steps or max(1, setting.steps // VALIDATIONS),
                "early_stopping_patience": None,
                "early_stopping_metric": None if objective == LOSS else objective,
            }
        )
        return replace(setting, recipe=setting.recipe.model_copy(update={"train": changed}))

    def _outcome(
        self, path: Path, record: RunRecord, values: Mapping[str, Any]
    ) -> tuple[TrialRecord, dict[int, float]]:
        """A finished trial, and its objective by the number of the validation."""
        name = self._objective()
        measured = [row for row in read_run(path).steps if name in row.validation]
        course = {number: row.validation[name] for number, row in enumerate(measured, 1)}
        failed = record.status == "failed" or not course
        trial = TrialRecord(
            folder=str(path.relative_to(self.folder)),
            values=dict(values),
            objective=None if failed else course[len(course)],
            step=measured[-1].step if measured else 0,
            stopped=record.train is not None and record.train.stopped_early,
            reason=record.reason,
        )
        return trial, course


def _told(values: Mapping[str, Any]) -> str:
    """Tried values in one line: `learning_rate 0.001, r 8`."""
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in values.items())


def _told_objective(trial: TrialRecord) -> str:
    if trial.objective is None:
        return f"failed: {trial.reason}"
    return f"{plain(trial.objective)}{f', stopped at step {trial.step}' if trial.stopped else ''}"
