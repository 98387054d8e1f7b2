"""The run's page: one file that opens offline, without a script, drawn from the files of the run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from inlay.tuner.records import DataRecord, EvalRecord, TrainRow
from inlay.tuner.report import chart, facts, figures, replies, scores
from inlay.tuner.report.files import RunFiles, read_run
from inlay.tuner.report.text import one_line, visible
from inlay.tuner.run_directory import write_whole

_HERE = Path(__file__).parent
_STEPS_SHOWN = 400
_LABELS_SHOWN = 24
_CONFUSIONS_SHOWN = 30
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class Split:
    """A row of the data table; every cell as printed."""

    name: str
    rows: str
    left_out: str
    documents_cut: str
    tokens: str


@dataclass(frozen=True)
class Curve:
    """A figure of the training section with its caption."""

    title: str
    unit: str
    svg: Markup


@dataclass(frozen=True)
class Label:
    """A row of the confusion table. `cells` count the label chosen, `right` is the share of this row on it."""

    name: str
    tokens: str
    cells: list[int]
    total: int
    right: str


def write_page(run: Path) -> Path:
    """Draws `report.html` from the files in the folder `run`; the same files give the same bytes.

    Returns:
        The page's path.

    Raises:
        RequestError: `run` is not a run, or a file in it is damaged.
    """
    page = run / "report.html"
    write_whole(page, _draw(read_run(run)))
    return page


def _draw(run: RunFiles) -> str:
    record = run.record
    trained = scores.trained(record)
    lines = scores.lines(record)
    steps = _shown_steps(run.steps)
    shown = scores.against_few_shot(record)
    template = environment(_HERE).get_template("page.html")
    return template.render(
        record=record,
        recipe=run.recipe,
        style=Markup(style()),
        heading=scores.sentence(record),
        language=language_tag(record.eval.language) if record.eval else "",
        trained=trained,
        lines=lines,
        pictures=_pictures(run, trained),
        few_shot=scores.lines(shown) if shown else [],
        few_shot_name=scores.few_shot_name(record),
        reasons=[reason for line in lines for reason in line.reasons],
        curves=_curves(steps),
        steps=steps,
        steps_logged=len(run.steps),
        validations=list(dict.fromkeys(name for step in steps for name in step.validation)),
        rows=replies.rows(run.predictions, trained=trained),
        predicted=len(run.predictions),
        labels=_labels(record.eval),
        confusions=_confusions(record.eval),
        length_effect=facts.length_effect(record.eval) if record.eval else "",
        splits=_splits(record.data),
        cost=facts.cost(record),
        base=facts.base(record),
        benchmark=facts.benchmark(record),
        versions=facts.versions(record),
    )


def style() -> str:
    """The style sheet that all pages share."""
    return (_HERE / "page.css").read_text(encoding="utf-8")


@cache
def environment(folder: Path) -> Environment:
    """Templates of `folder`, and those that all pages share: every value is escaped, and its hidden characters made
    visible, at the one place where it enters a page."""
    made = Environment(
        loader=FileSystemLoader([folder, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_safe,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "plain": figures.plain,
        "count": figures.count,
        "minus": lambda text: text.replace("-", "\N{MINUS SIGN}") if text != figures.MISSING else text,
        "name": scores.score_name,
        "line": one_line,
        "duration": figures.duration,
    }
    return made


def _safe(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def language_tag(word: str) -> str:
    """The language tag of the data's texts; empty (unknown) where the record's word is not a tag."""
    return word if _LANGUAGE.fullmatch(word) else ""


def _pictures(run: RunFiles, trained: bool) -> dict[str, Markup]:
    """Dot and whisker of each score, where there are two models to see on one axis."""
    found = run.record.metrics
    if found is None or not trained:
        return {}
    keys = list(dict.fromkeys([*found.tuned, *found.base]))
    return {
        key: chart.whiskers(f"score-{number}", scores.score_name(key), found.base.get(key), found.tuned.get(key))
        for number, key in enumerate(keys, 1)
    }


def _shown_steps(steps: list[TrainRow]) -> list[TrainRow]:
    """At most 400 evenly spaced steps, and every step with a validation."""
    kept = {step.step for step in replies.spread(steps, _STEPS_SHOWN)} | {step.step for step in steps[-1:]}
    return [step for step in steps if step.step in kept or step.validation]


def _curves(steps: list[TrainRow]) -> list[Curve]:
    if not steps:
        return []
    validation: dict[str, list[chart.Point]] = {}
    for step in steps:
        for name, value in step.validation.items():
            validation.setdefault(name, []).append((step.step, value))
    losses = [chart.Series("training loss", [(step.step, step.loss) for step in steps])]
    if "loss" in validation:
        losses.append(chart.Series("validation loss", validation.pop("loss"), "marked"))
    rates = [chart.Series("learning rate", [(step.step, step.learning_rate) for step in steps])]
    panels = [("Loss", "nats per trained token", losses), ("Learning rate", "", rates)]
    for name, points in validation.items():
        panels.append((f"Validation: {scores.score_name(name)}", "", [chart.Series("validation", points, "marked")]))
    return [
        Curve(title, unit, chart.curve(f"curve-{number}", title, unit, series))
        for number, (title, unit, series) in enumerate(panels, 1)
    ]


def _labels(done: EvalRecord | None) -> list[Label]:
    """The confusion table, where the labels are few enough to read it."""
    if done is None or not done.confusion or len(done.labels) > _LABELS_SHOWN:
        return []
    labels = []
    for index, (name, cells) in enumerate(zip(done.labels, done.confusion, strict=True)):
        total = sum(cells)
        right = figures.percent(cells[index] / total) if total else f"{figures.MISSING} (no rows)"
        tokens = str(done.label_tokens[index]) if done.label_tokens else figures.MISSING
        labels.append(Label(name, tokens, cells, total, right))
    return labels


def _confusions(done: EvalRecord | None) -> list[tuple[str, str, int]]:
    """Where the labels are many: the most frequent mistakes as (expected, chosen, rows), most rows first."""
    if done is None or len(done.labels) <= _LABELS_SHOWN:
        return []
    mistakes = [
        (gold, chosen, number)
        for gold, cells in zip(done.labels, done.confusion, strict=True)
        for chosen, number in zip(done.labels, cells, strict=True)
        if gold != chosen and number
    ]
    return sorted(mistakes, key=lambda mistake: (-mistake[2], mistake[0], mistake[1]))[:_CONFUSIONS_SHOWN]


def _splits(data: DataRecord | None) -> list[Split]:
    if data is None:
        return []

    def cell(numbers: dict[str, int], split: str) -> str:
        return figures.count(numbers[split]) if split in numbers else "not counted"

    return [
        Split(
            name,
            cell(data.rows, name),
            cell(data.left_out, name),
            cell(data.documents_cut, name),
            cell(data.tokens, name),
        )
        for name in data.rows
    ]
