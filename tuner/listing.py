"""What `inlay ls` prints: methods, tasks, metrics, recipes with what each can do, and the runs of this folder."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.run_directory import RUNS

_GAP = "  "


def listing(topic: str | None = None) -> str:
    """The listing of one topic, or of methods, tasks, metrics and recipes."""
    if topic is not None:
        return _TOPICS[topic]()
    parts = [f"{name}\n{_indented(_TOPICS[name]())}" for name in ("methods", "tasks", "metrics", "recipes")]
    return "\n\n".join(parts)


def run_named(text: str) -> Path | None:
    """The folder of the run that `text` names by path, or by name under `runs/`."""
    return next((path for path in (Path(text), RUNS / text) if (path / "run.json").is_file()), None)


def comparison_named(text: str) -> Path | None:
    """As `run_named`, of a comparison."""
    return next((path for path in (Path(text), RUNS / text) if (path / "comparison.json").is_file()), None)


def find_run(text: str) -> Path:
    """As `run_named`.

    Raises:
        RequestError: there is no such run; names the closest one.
    """
    found = run_named(text)
    if found:
        return found
    known = [folder.name for folder in _run_folders()]
    close = difflib.get_close_matches(Path(text).name, known, n=1)
    help = f"did you mean `{close[0]}`?" if close else "`inlay ls runs` lists the runs of this folder"
    raise RequestError(Problem("there is no run here", file=text, help=help))


def adapter_named(text: str) -> Path:
    """The folder of an adapter, or of the run, that `text` names.

    Raises:
        RequestError: there is neither; names the closest run.
    """
    return Path(text) if (Path(text) / "adapter_config.json").is_file() else find_run(text)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the last one is as long as it likes."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    lines = [
        _GAP.join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _methods() -> str:
    from inlay import adapters

    answer = {True: "yes", False: "no"}
    rows = [("method", "on 4-bit", "bases", "merges", "to LoRA", "checkpointing", "rate", "stands on", "")]
    for name in adapters.names():
        method = adapters.find(name)
        rows.append(
            (
                name,
                "dequantized" if method.needs_float_weights else "4-bit",
                ", ".join(method.model_types) or ("both" if len(method.kinds) > 1 else method.kinds[0]),
                answer[method.mergeable],
                answer[method.convertible],
                answer[method.checkpointing],
                f"{method.learning_rate:g}",
                method.place,
                ": ".join(filter(None, (method.title, method.paper))),
            )
        )
    return _table(rows)


def _tasks() -> str:
    from inlay.tuner.data import tasks

    rows = [("task", "columns", "metrics")]
    for name in tasks.names():
        task = tasks.find(name)
        rows.append((name, ", ".join(task.columns), ", ".join(task.metrics)))
    return _table(rows)


def _metrics() -> str:
    from inlay.eval import metrics

    directions = {True: "higher is better", False: "lower is better", None: "neither is better"}
    rows = [("metric", "unit", "", "needs", "scores")]
    for name in metrics.names():
        metric = metrics.find(name)
        rows.append(
            (name, metric.unit, directions[metric.higher_is_better], f"a {metric.needs}", ", ".join(metric.scores))
        )
    return _table(rows)


def _recipes() -> str:
    from inlay.tuner.shipped import comparisons, shipped

    return _table([(recipe.name, recipe.summary) for recipe in (*shipped(), *comparisons())])


def _run_folders() -> list[Path]:
    return sorted((path.parent for path in RUNS.glob("*/run.json")), key=lambda folder: folder.stat().st_mtime)


def _runs() -> str:
    rows = [_run_row(folder) for folder in _run_folders()]
    rows += [_comparison_row(path.parent) for path in sorted(RUNS.glob("*/comparison.json"))]
    if not rows:
        return "no runs in this folder yet; `inlay run quickstart` makes one"
    return _table([("run", "status", "main score", "age", "size"), *rows])


def _comparison_row(folder: Path) -> tuple[str, str, str, str, str]:
    size = _size_of(folder)
    try:
        record = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
        done = sum(row["status"] == "done" for row in record["rows"])
        status, finding = f"{record['status']}, {done} of {len(record['rows'])} rows", record["heading"]
        age = time.time() - datetime.fromisoformat(record["created"]).timestamp()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return (folder.name, "unreadable comparison.json", "-", "-", _size(size))
    return (folder.name, _visible(status), _visible(finding), _age(age), _size(size))


def _size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _run_row(folder: Path) -> tuple[str, str, str, str, str]:
    size = _size_of(folder)
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        status, score = record["status"], _main_score(record.get("metrics"))
        age = time.time() - datetime.fromisoformat(record["created"]).timestamp()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return (folder.name, "unreadable run.json", "-", "-", _size(size))
    status = f"{status}: {record['reason'].splitlines()[0]}" if record.get("reason") else status
    return (folder.name, _visible(status), score, _age(age), _size(size))


def _main_score(scores: dict[str, Any] | None) -> str:
    """The first score of the tuned model, and what its change earned."""
    if not scores or not scores["tuned"]:
        return "-"
    name, score = next(iter(scores["tuned"].items()))
    verdict = scores["change"].get(name, {}).get("verdict", "")
    return _visible(f"{name} {score['value']:.4g} {verdict}").rstrip()


def _visible(text: str) -> str:
    """The text without anything that a terminal would obey, cut at 60 characters."""
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


_TOPICS: dict[str, Callable[[], str]] = {
    "methods": _methods,
    "tasks": _tasks,
    "metrics": _metrics,
    "recipes": _recipes,
    "runs": _runs,
}
