"""The end of a run in the terminal: one table, what it took, and where to look."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from inlay.tuner.records import RunRecord
from inlay.tuner.report import facts
from inlay.tuner.report.figures import MISSING, count, counted, duration, size
from inlay.tuner.report.files import read_record
from inlay.tuner.report.scores import Line, against_few_shot, few_shot_name, lines, model_name, trained
from inlay.tuner.report.text import columns, one_line, pad, shorten, wrap

_WIDTH = 80
_INDENT = 8
_SHORTEST_NAME = 8
_GAP = "  "


def print_table(run: Path) -> None:
    """Prints the table of the run in the folder `run` to stdout.

    Raises:
        RequestError: `run` is not a run, or its `run.json` is damaged.
    """
    text = table(read_record(run), run)
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def table(record: RunRecord, run: Path) -> str:
    """The run in at most 80 columns; only a path or a command, which must stay whole, may be longer.

    Every text from data is made visible first: no control or direction character of it reaches the terminal.
    """
    shown = against_few_shot(record)
    further = _scores(shown, few_shot_name(record)) if shown else ""
    parts = [_title(record), _scores(record), further, _cost(record), _next(record, run)]
    return "\n\n".join(part for part in parts if part)


def _title(record: RunRecord) -> str:
    method = f"{one_line(record.adapter.name)} on " if record.adapter and trained(record) else ""
    end = f"   seed {record.seed}   {duration(record.seconds)}"
    what = shorten(method + model_name(record.base), _WIDTH - _INDENT - columns(end)) + end
    run = shorten(one_line(record.id), _WIDTH - _INDENT)
    fits = columns(f"{run}   {what}") <= _WIDTH - _INDENT
    title = [_labelled("run", f"{run}   {what}" if fits else f"{run}\n{what}")]
    if record.status != "complete":
        title.append(_labelled("status", ": ".join(filter(None, [record.status, one_line(record.reason)]))))
    return "\n".join(title)


def _labelled(label: str, text: str) -> str:
    """`text` behind a label, wrapped where it is long."""
    wrapped = [part for line in text.splitlines() for part in wrap(line, _WIDTH - _INDENT)]
    return "\n".join(pad("" if number else label, _INDENT) + line for number, line in enumerate(wrapped))


def _scores(record: RunRecord, base: str = "base") -> str:
    found = lines(record)
    if not found:
        return ""
    rows = [_cells(line, trained(record)) for line in found]
    head = _head(record, trained(record), base)
    widths = [max(columns(row[column]) for row in [head, *rows]) for column in range(len(head))]
    spare = _WIDTH - sum(widths) - len(_GAP) * (len(widths) - 1)
    widths[0] = max(widths[0] + min(spare, 0), _SHORTEST_NAME)
    notes = [f"{MISSING} {reason}" for line in found for reason in line.reasons]
    table_ = [_row(cells, widths) for cells in [head, *rows]]
    return "\n".join([*table_, *(part for note in notes for part in wrap(note, _WIDTH))])


def _head(record: RunRecord, compared: bool, base: str) -> list[str]:
    name = f"{one_line(record.eval.split)}, {counted(record.eval.rows, 'row')}" if record.eval else "score"
    return [name, "", base, *(["tuned", "change", "95 % interval", ""] if compared else ["95 % interval"])]


def _cells(line: Line, compared: bool) -> list[str]:
    end = [line.tuned, line.change, line.change_interval, line.verdict] if compared else [line.base_interval]
    return [line.name, line.direction, line.base, *end]


def _row(cells: list[str], widths: list[int]) -> str:
    """Name, direction and verdict stand left; figures stand right."""
    padded = [
        pad(shorten(cell, width), width, right=column not in (0, 1, 6))
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return _GAP.join(padded).rstrip()


def _cost(record: RunRecord) -> str:
    memory, time, how = [], [], []
    if record.train:
        predicted = f" (predicted {facts.memory_forecast(record.forecast)})" if record.forecast else ""
        memory.append(f"{size(record.train.peak_bytes)} peak in training{predicted}")
        time.append(f"training {duration(record.train.seconds)} (steps only)")
        time.append(f"{count(round(record.train.tokens_per_second))} tokens/s")
    if record.eval:
        memory.append(f"{size(record.eval.peak_bytes)} in testing")
        time.append(f"testing {duration(record.eval.seconds)}")
        how.append(one_line(record.eval.decoding))
    if record.adapter and record.adapter.bytes and trained(record):
        memory.append(f"adapter {size(record.adapter.bytes)}")
    if record.metrics:
        known = record.metrics.tuned or record.metrics.base
        how += dict.fromkeys(one_line(score.signature) for score in known.values())
    noise = facts.noise(record.eval.noise) if record.eval and record.eval.noise else ""
    overlap = facts.overlap(record.data) if record.data else ""
    costs = [("memory", ", ".join(memory)), ("time", ", ".join(time)), ("data", overlap)]
    found = [*costs, ("how", "; ".join(how)), ("noise", noise)]
    return "\n".join(_labelled(label, text) for label, text in found if text)


def _next(record: RunRecord, run: Path) -> str:
    folder = shlex.quote(one_line(str(run)))
    verbs = [("look", one_line(str(run / "report.html"))), ("draw", f"inlay report {folder}")]
    if record.metrics:
        verbs.append(("again", f"inlay eval {folder}"))
    return "\n".join(pad(label, _INDENT) + text for label, text in verbs)
