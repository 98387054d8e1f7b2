"""The record of a comparison that inlay makes itself: its plan, its cells as they stand, and what they show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inlay import adapters
from inlay.eval.metrics import Additive
from inlay.tuner.comparison.analysis import analyse
from inlay.tuner.comparison.inputs import Cell, Course, RowInput
from inlay.tuner.comparison.plan import PlannedRow
from inlay.tuner.comparison.prepare import Ready
from inlay.tuner.comparison.records import ComparisonRecord
from inlay.tuner.comparison.words import detectable_by, heading, sentences
from inlay.tuner.recipe import Recipe
from inlay.tuner.report.figures import count, counted, plain

BASE_CELL = Path("cells/base")
FREE = ("learning_rate",)  # differs between methods by nature; it has a column of its own


def cell_of(folder: Path, row: PlannedRow, seed: int) -> Path:
    """Where the run of a row with a seed is."""
    return folder / "cells" / f"{row.slug}-s{seed}"


def record_of(ready: Ready, folder: Path, course: Course) -> ComparisonRecord:
    """What comparison.json says; scores and groups are told when all is done."""
    plan = ready.plan
    complete = course.status == "complete"
    inputs = [_input(row, ready, folder, course) for row in plan.rows]
    analysed = analyse(inputs, ready.base.metrics if complete else (), ready.score, folder)
    base = Cell.at(folder / BASE_CELL, plan.seeds[0]).record
    metric = next(metric for metric in ready.base.metrics if ready.score in metric.scores)
    main = metric if isinstance(metric, Additive) else None
    tuning = _tuning(ready)
    examples = len(ready.base.data.examples[ready.base.recipe.eval.split])
    return ComparisonRecord(
        id=folder.name,
        name=plan.name,
        status=course.status,
        reason=course.reason,
        created=course.created,
        seconds=course.seconds,
        command=course.command,
        identity=plan.identity,
        spec=plan.text,
        task=ready.base.recipe.task.type,
        base=base.base if base else None,
        data=ready.base.data.record,
        environment=base.environment if base else None,
        split=ready.base.recipe.eval.split,
        examples=examples,
        decoding=base.eval.decoding if base and base.eval else ready.base.decoding.signature(),
        language=ready.base.language,
        seeds=list(plan.seeds),
        score=ready.score,
        score_info=analysed.info,
        claim=analysed.groups.claim if analysed.groups else "seeds" if len(plan.seeds) > 1 else "examples",
        tuning=tuning,
        detectable=detectable_by(analysed.groups, main, len(plan.seeds), examples),
        heading=heading(analysed, ready.score, plan.name),
        sentences=sentences(analysed, main, ready.score, tuning) if complete else [],
        protocol=_protocol(ready),
        rows=analysed.rows,
        pairs=analysed.pairs,
    )


def _input(row: PlannedRow, ready: Ready, folder: Path, course: Course) -> RowInput:
    setting = ready.settings.get(row.slug)
    refusal = ready.refused.get(row.slug, "") or course.given_up.get(row.slug, "")
    if row.kind in ("base", "few_shot"):
        cells = [Cell.at(folder / BASE_CELL, ready.plan.seeds[0])]
    else:
        cells = [Cell.at(cell_of(folder, row, seed), seed) for seed in ready.plan.seeds]
    chosen = course.chosen.get(row.slug, {})
    rate = chosen.get("train.learning_rate", setting.learning_rate if setting else None)
    return RowInput(
        label=row.label,
        kind=row.kind,
        method=row.recipe.adapter.method,
        title=adapters.find(row.recipe.adapter.method).title,
        options=_chosen(row, chosen, ready).adapter.options.model_dump(mode="json"),
        cells=[] if row.slug in ready.refused else cells,
        learning_rate=float(rate) if rate and row.kind in ("method", "full") else None,
        refusal=refusal,
        differs=_differs(row, ready),
        trials=course.trials.get(row.slug, []),
        chosen=chosen,
        at_edge=course.at_edge.get(row.slug, []),
    )


def _chosen(row: PlannedRow, values: Mapping[str, Any], ready: Ready) -> Recipe:
    """The row's recipe with the values that its search found."""
    return row.with_values(values, row.recipe.name, ready.plan.seeds[0]) if values else row.recipe


def _differs(row: PlannedRow, ready: Ready) -> list[str]:
    """Training fields in which the row is not as most methods are, beside its learning rate."""
    if row.kind != "method":
        return []
    fields = row.recipe.train.model_dump(mode="json")
    others = [other.recipe.train.model_dump(mode="json") for other in ready.plan.rows if other.kind == "method"]
    start = row.recipe.adapter.start_from
    return [
        *([f"trained on from {row.recipe.written('adapter.start_from')}"] if start else []),
        *(
            f"{name.replace('_', ' ')} {value}"
            for name, value in fields.items()
            if name not in FREE and value != _most_common([other[name] for other in others])
        ),
    ]


def _most_common(values: list[Any]) -> Any:
    """The value that most have; of equals the first."""
    return max(values, key=values.count)


def _tuning(ready: Ready) -> str:
    """How learning rates were chosen."""
    search = ready.plan.search
    if search is None:
        methods = [row for row in ready.trained if row.kind == "method"]
        named = [row.label for row in methods if row.named_rate]
        if not named:
            return "Learning rates: untuned defaults of the methods."
        if len(named) == len(methods):
            return "Learning rates: untuned, as the comparison names them."
        return f"Learning rates: untuned; named for {', '.join(named)}, the methods' defaults for the others."
    fields = ", ".join(name.rpartition(".")[2].replace("_", " ") for name in search.space)
    rows = ready.base.data.record.rows.get("validation", 0)
    full = " Full fine-tuning was not searched." if any(row.kind == "full" for row in ready.trained) else ""
    return (
        f"Searched: {fields}, {counted(search.trials, 'trial')} at most for each method, by {search.objective} on "
        f"{counted(rows, 'validation row')}; the test rows were scored once, after that.{full}"
    )


def _protocol(ready: Ready) -> list[str]:
    """What was the same for every row."""
    setting = ready.base
    recipe, record = setting.recipe, setting.data.record
    train = recipe.train
    amount = f"{count(train.max_steps)} steps" if train.max_steps else f"{plain(train.epochs or 1)} epochs"
    batch = train.micro_batch_size * train.gradient_accumulation_steps
    return [
        f"base {setting.files.name}, {setting.quantization}, opened once; its bytes were checked after every row",
        f"{counted(record.rows['train'], 'training row')} in the same order for a seed, {amount} of {batch} rows",
        f"{counted(record.rows[recipe.eval.split], recipe.eval.split + ' row')}, the same tokens scored",
        f"decoding: {setting.decoding.signature()}",
        f"prompts: {setting.renderer.prompt_format}",
    ]
