"""`inlay compare RUN RUN ...`: finished runs of any origin, under the same rules as runs that a comparison made."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import inlay
from inlay.eval import metrics as metric_folder
from inlay.eval.metrics import Additive, Metric
from inlay.tuner.comparison import store
from inlay.tuner.comparison.analysis import analyse
from inlay.tuner.comparison.inputs import Cell, RowInput
from inlay.tuner.comparison.page import write_pages
from inlay.tuner.comparison.records import ComparisonRecord
from inlay.tuner.comparison.words import detectable_by, heading, sentences
from inlay.tuner.problems import RequestError
from inlay.tuner.records import RunRecord
from inlay.tuner.report import read_record
from inlay.tuner.report.figures import counted
from inlay.tuner.report.files import read_run
from inlay.tuner.run_directory import free_path

NAME = "compare-runs"
TUNING = "Learning rates: as each run had them; how they were chosen is not known here."


def compare_runs(paths: Sequence[Path], *, output: Path | None, again: bool, command: str) -> Path:
    """Compares finished runs: runs that differ in their seed alone are one row.

    Raises:
        RequestError: a run is not finished, two runs are the same row with the same seed, or they share no score.
    """
    records = {path: _finished(path) for path in paths}
    identity = _identity(records)
    folder, done = _folder(output, identity)
    if done and not again:
        return folder
    first = next(iter(records.values()))
    assert first.eval is not None
    metrics = _metrics(list(records.values()), first.eval.language)
    score = metrics[0].main or metrics[0].scores[0]
    inputs = _rows(records)
    analysed = analyse(inputs, metrics, score, folder)
    main = metrics[0] if isinstance(metrics[0], Additive) else None
    seeds = max(len(row.cells) for row in inputs if row.kind == "method")
    record = ComparisonRecord(
        id=folder.name,
        name=NAME,
        status="complete",
        reason="",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        command=command,
        identity=identity,
        spec="",
        task=first.task,
        base=first.base,
        data=first.data,
        environment=first.environment,
        split=first.eval.split,
        examples=first.eval.rows,
        decoding=first.eval.decoding,
        language=first.eval.language,
        seeds=sorted({run.seed for run in records.values()}),
        score=score,
        score_info=analysed.info,
        claim=analysed.groups.claim if analysed.groups else "seeds" if seeds > 1 else "examples",
        tuning=TUNING,
        detectable=detectable_by(analysed.groups, main, seeds, first.eval.rows),
        heading=heading(analysed, score, f"{counted(len(records), 'run')} compared"),
        sentences=sentences(analysed, main, score, TUNING),
        protocol=[
            f"{counted(first.eval.rows, first.eval.split + ' row')}, the same tokens scored, {first.eval.decoding}",
            "base, data, decoding and training budget of every ranked row were checked to be equal",
        ],
        rows=analysed.rows,
        pairs=analysed.pairs,
    )
    store.write_comparison(folder, record)
    write_pages(folder)
    return folder


def _finished(path: Path) -> RunRecord:
    record = read_record(path)
    if record.status != "complete" or record.metrics is None or record.adapter is None:
        raise RequestError(f"`{path}` is no finished run of an adapter ({record.status})")
    if not record.metrics.tuned:
        raise RequestError(f"`{path}` measured the base alone", help="it stands in every comparison already")
    return record


def _identity(records: dict[Path, RunRecord]) -> str:
    parts = [(str(path.absolute()), run.created, run.recipe_hash) for path, run in records.items()]
    return hashlib.sha256(json.dumps([inlay.__version__, sorted(parts)]).encode()).hexdigest()


def _folder(output: Path | None, identity: str) -> tuple[Path, bool]:
    """Where it goes, and whether it is there already."""
    if output is not None:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise RequestError(f"`{output}` is not empty, and nothing is overwritten")
        return output, False
    free, used = free_path(NAME, identity)
    for path in used:
        if (path / "comparison.html").is_file() and store.read_comparison(path).identity == identity:
            return path, True
    return free, False


def _metrics(runs: Sequence[RunRecord], language: str) -> list[Metric]:
    """The metrics whose scores all runs have, in the order of the first one's."""
    shared = [
        name
        for name in (runs[0].metrics.tuned if runs[0].metrics else {})
        if all(run.metrics and name in run.metrics.tuned for run in runs)
    ]
    owners = {score: name for name in metric_folder.names() for score in metric_folder.find(name).scores}
    found = [metric_folder.find(owner)(language) for owner in dict.fromkeys(owners[name] for name in shared)]
    if not found:
        raise RequestError("these runs have no score in common")
    return found


def _rows(records: dict[Path, RunRecord]) -> list[RowInput]:
    grouped: dict[str, dict[Path, RunRecord]] = {}
    for path, run in records.items():
        grouped.setdefault(json.dumps(_kind(path, run), sort_keys=True), {})[path] = run
    labels = _labels([next(iter(group.values())) for group in grouped.values()])
    rows = []
    for label, group in zip(labels, grouped.values(), strict=True):
        seeds = Counter(run.seed for run in group.values())
        twice = [seed for seed, times in seeds.items() if times > 1]
        if twice:
            same = [str(path) for path, run in group.items() if run.seed == twice[0]]
            raise RequestError(f"{' and '.join(same)} are the same but for when they ran (seed {twice[0]})")
        run = next(iter(group.values()))
        assert run.adapter is not None
        cells = [Cell(one.seed, path.absolute(), one) for path, one in group.items()]
        rows.append(
            RowInput(
                label=label,
                kind="method",
                method=run.adapter.method,
                title=run.adapter.name,
                options=run.adapter.options,
                cells=sorted(cells, key=lambda cell: cell.seed),
                learning_rate=run.train.learning_rate if run.train else None,
            )
        )
    path, run = next(iter(records.items()))
    base = RowInput("base", "base", "none", "untouched base", {}, [Cell(run.seed, path.absolute(), run)])
    return [base, *rows]


def _kind(path: Path, run: RunRecord) -> list[Any]:
    """All in which runs of one row agree: everything but the seed and the name."""
    recipe = [line for line in read_run(path).recipe.splitlines() if not line.startswith(("seed:", "name:"))]
    start = run.adapter.start_sha256 if run.adapter else ""
    return [recipe, start, run.base.sha256 if run.base else "", run.data.rows_sha256 if run.data else ""]


def _labels(runs: Sequence[RunRecord]) -> list[str]:
    """The methods' names; with the run's own where two rows have the same."""
    titles = Counter(run.adapter.name for run in runs if run.adapter)
    labels = [
        run.adapter.name if titles[run.adapter.name] == 1 else f"{run.adapter.name} ({run.name})"
        for run in runs
        if run.adapter
    ]
    repeated = Counter(labels)
    return [
        label if repeated[label] == 1 else f"{label} {run.id}" for label, run in zip(labels, runs, strict=True)
    ]
