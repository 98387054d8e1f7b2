"""What the rows cost: the table, and the units of the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inlay.tuner.comparison.records import ComparisonRecord, CostRecord, ForgettingRecord, RowRecord
from inlay.tuner.report.figures import MISSING, count, duration, figure, interval, plain, size
from inlay.tuner.report.text import one_line


@dataclass(frozen=True)
class Cell:
    """A number as printed, with what stands below it; `sort` is the number itself."""

    text: str
    below: str
    sort: float | None


@dataclass(frozen=True)
class Column:
    """A column of the table of costs; `unit` stands below its name."""

    key: str
    name: str
    unit: str


@dataclass(frozen=True)
class CostLine:
    """A row of the table of costs."""

    label: str
    cells: list[Cell]


@dataclass(frozen=True)
class CostTable:
    """Columns that no row has are left out, and `missing` names them."""

    columns: list[Column]
    lines: list[CostLine]
    missing: list[str]


_Read = Callable[[RowRecord], Cell]


def _of(read: Callable[[CostRecord], float | None], write: Callable[[float], str]) -> _Read:
    def cell(row: RowRecord) -> Cell:
        value = read(row.cost) if row.cost else None
        return Cell(MISSING, "", None) if value is None else Cell(write(value), "", value)

    return cell


def _forgetting(row: RowRecord) -> Cell:
    found: ForgettingRecord | None = row.forgetting
    if found is None:
        return Cell(MISSING, "", None)
    ends = interval(found.value, found.ci95, signed=True) if found.ci95 else MISSING
    return Cell(figure(found.value, found.ci95, signed=True), ends, found.value)


def _bytes(value: float) -> str:
    return size(round(value))


def _milliseconds(value: float) -> str:
    return f"{plain(1000 * value)} ms"


_COLUMNS: list[tuple[Column, _Read]] = [
    (Column("trainable", "Trainable", "parameters"), _of(lambda c: c.trainable_parameters, lambda v: count(round(v)))),
    (Column("adapter", "Adapter", "on disk"), _of(lambda c: c.adapter_bytes, _bytes)),
    (Column("extra", "Plain layers", "memory"), _of(lambda c: c.extra_base_bytes or None, _bytes)),
    (Column("train", "Training", "steps only"), _of(lambda c: c.train_seconds, duration)),
    (Column("speed", "Speed", "tokens/s"), _of(lambda c: c.tokens_per_second, lambda v: count(round(v)))),
    (Column("memory", "Peak, training", "memory"), _of(lambda c: c.train_peak_bytes, _bytes)),
    (Column("eval", "Testing", "time"), _of(lambda c: c.eval_seconds, duration)),
    (Column("eval-memory", "Peak, testing", "memory"), _of(lambda c: c.eval_peak_bytes, _bytes)),
    (Column("latency", "Latency", "for a token"), _of(lambda c: c.latency_seconds, _milliseconds)),
    (Column("merged", "Merged", "for a token"), _of(lambda c: c.merged_latency_seconds, _milliseconds)),
    (Column("forgetting", "Forgetting", "bits per byte"), _forgetting),
]


def cost_table(rows: Sequence[RowRecord]) -> CostTable:
    """The costs of `rows`, in their order."""
    kept, missing = [], []
    for column, read in _COLUMNS:
        if any(read(row).sort is not None for row in rows):
            kept.append((column, read))
        elif column.key != "extra":
            missing.append(f"{column.name.lower()} ({column.unit})")
    lines = [CostLine(one_line(row.label), [read(row) for _, read in kept]) for row in rows]
    return CostTable([column for column, _ in kept], lines if kept else [], missing)


def notes(record: ComparisonRecord) -> list[str]:
    """What the costs count, and what they do not."""
    measured = [row for row in record.rows if row.cost]
    device = record.environment.device if record.environment else ""
    memory = "memory of the device" if device.startswith("cuda") else "resident memory of the process"
    found = [
        "Times and speeds are measured, and are means over the seeds of a row; a peak is the highest of any seed. "
        "Training time is that of the steps alone: loading, the search for a learning rate and testing are not in it.",
        f"A peak is {memory}, which holds the base too.",
    ]
    if any(row.cost.latency_seconds is not None for row in measured):
        found.append(
            "Latency is that of one generated token at batch size 1, with the adapter beside the base; merged: with "
            "the adapter in the weights of plain layers, `-` where a method cannot be merged."
        )
    if any(row.cost.extra_base_bytes for row in measured):
        found.append(
            "Plain layers: the method cannot work on quantized layers, so its target layers are held in full beside "
            "what the quantized base takes."
        )
    if any(row.forgetting for row in record.rows):
        found.append(
            "Forgetting is what the adapted model needs more than the base, in bits per byte, on text outside the "
            "task: zero is nothing forgotten, more is worse."
        )
    return found


def time_unit(seconds: Sequence[float]) -> tuple[float, str]:
    """The seconds in one unit, and the unit, for a figure or a column of these durations."""
    longest = max(seconds, default=0)
    return (3600.0, "h") if longest >= 7200 else (60.0, "min") if longest >= 120 else (1.0, "s")


def memory_unit(sizes: Sequence[float]) -> tuple[float, str]:
    """The bytes in one unit, and the unit."""
    return (1e9, "GB") if max(sizes, default=0) >= 1e9 else (1e6, "MB")
