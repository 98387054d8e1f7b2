"""`inlay check`: what a recipe would do, said in seconds, without a run.

First everything that can be told before a weight is loaded: the plan, the findings, the first rows as the model sees
them, and forecasts of memory and disk. Then, if that is sound and fits, the base is loaded and three steps of training
and one batch of the benchmark are timed here. Nothing is written.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inlay.eval import Example, MeasurementError
from inlay.eval.score import score
from inlay.eval.scoring import Scorable
from inlay.tuner import benchmark, preflight
from inlay.tuner.console import Progressing, hushed
from inlay.tuner.data.prepared import show as show_row
from inlay.tuner.forecast import forecast
from inlay.tuner.preflight import Finding
from inlay.tuner.problems import Failure, Problem, RequestError
from inlay.tuner.recipe import Recipe
from inlay.tuner.records import ForecastRecord
from inlay.tuner.report.figures import duration, size
from inlay.tuner.report.text import visible
from inlay.tuner.setting import Setting, survey
from inlay.tuner.signals import StopRequest
from inlay.tuner.training.engine import Listener, train
from inlay.tuner.training.flat import possible

TIMED_STEPS = 3
# How far what is timed in seconds lies from what minutes show, on a machine that does other things too.
FASTER, SLOWER = 0.5, 2.2
SHORTEST_REPLIES = 0.3  # of the longest possible, where a model learns to end early
BEFORE_AND_AFTER = (3.0, 15.0)  # seconds to load the base, and to score and draw
LONGEST_SHOWN = 1_500  # characters of a row


@dataclass(frozen=True)
class Checked:
    """What was found. `text` is what is printed; `sound`: nothing failed."""

    text: str
    sound: bool


def check(recipe: Recipe, *, rows: int = 1, timed: bool = True) -> Checked:
    """Examines a recipe.

    Args:
        rows: training rows to show.
        timed: load the base and time a few steps, where nothing stands against it.

    Raises:
        Failure: the run would be refused: the recipe, the data, the base or this machine is not as asked.
    """
    import torch

    show = Progressing()
    with hushed(), StopRequest():
        setting = survey(recipe)
        predicted = forecast(setting)
        found = [*preflight.findings(setting), preflight.room(setting, predicted)]
        seconds = None
        if timed and not any(finding.outcome == "FAIL" for finding in found):
            try:
                seconds = _timed(setting, show)
            except (Failure, MeasurementError, torch.OutOfMemoryError) as error:
                said = error.problems[0].message if isinstance(error, Failure) else str(error).splitlines()[0]
                found.append(Finding("FAIL", "M302", f"the timed steps failed: {said}", "inlay run would fail alike"))
        sound = not any(finding.outcome == "FAIL" for finding in found)
    failed = sum(finding.outcome == "FAIL" for finding in found)
    warned = sum(finding.outcome == "warn" for finding in found)
    parts = [
        _plan(setting),
        "\n".join(_line(finding) for finding in found),
        "\n".join(_row(setting, i) for i in range(min(rows, len(setting.data.training)))),
        _costs(predicted, seconds, sound=sound, timed=timed),
        f"{failed} failed, {warned} to look at. Nothing was trained or written.",
    ]
    return Checked("\n\n".join(part for part in parts if part), sound)


def forecast_run(recipe: Recipe) -> tuple[ForecastRecord | None, tuple[float, float]]:
    """The forecasts alone: of memory and disk, and of the run's seconds as a range."""
    with hushed(), StopRequest():
        setting = survey(recipe)
        return forecast(setting), _timed(setting, Progressing())


def explain(code: str) -> str:
    """What the finding with this code means.

    Raises:
        RequestError: there is no such code.
    """
    known = {**preflight.CHECKS, "M301": preflight.room, "M302": _timed}
    if code not in known:
        raise RequestError(Problem(f"there is no finding `{code}`", help=f"known: {', '.join(known)}"))
    first, _, rest = (known[code].__doc__ or "").partition("\n")
    lines = [first, *(line.removeprefix("    ") for line in rest.rstrip().splitlines())]
    return f"{code}  " + "\n".join(lines).rstrip()


class _Clock(Listener):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends = [time.perf_counter()]

    def stepped(self, step: int, steps: int, loss: float | None, tokens_per_second: float) -> None:
        self.ends.append(time.perf_counter())


def _timed(setting: Setting, show: Progressing) -> tuple[float, float]:
    """Seconds that the run would take, from three steps and one batch here; a range.

    Three steps of training and the first batch of the benchmark are made as the run would make them. What fails there
    fails in the run.
    """
    recipe = setting.recipe
    show.say("timing   three steps and one batch of the benchmark")
    base = setting.open_base()
    adapted = setting.open_adapter(base, recipe.seed)
    model = benchmark.scorable(setting, base, adapted)
    each = [0.0]
    if setting.trainable:
        clock = _Clock()
        few = recipe.train.model_copy(
            update={
                "max_steps": TIMED_STEPS, "epochs": None, "eval_steps": None, "report_to": [],
                "early_stopping_patience": None,
            }
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            train(
                adapted, setting.data.training, few, seed=recipe.seed, learning_rate=setting.learning_rate,
                pad_id=setting.pad_id, start_id=setting.start_id(base), device=base.device, validation=None,
                listener=clock, stop=StopRequest(), folder=Path(folder), name=recipe.name, flat=possible(model, few),
            )  # fmt: skip
        each = [b - a for a, b in zip(clock.ends, clock.ends[1:], strict=False)]
    measured = setting.data.examples[recipe.eval.split]
    batch = _seconds(setting, model, measured)
    testing = batch * len(measured) * (2 if setting.trainable else 1)
    if setting.data.shown:
        testing += _seconds(setting, model, setting.few_shot()) * len(measured)
    if recipe.train.eval_steps:
        testing += batch * len(setting.data.examples["validation"]) * (setting.steps // recipe.train.eval_steps + 1)
    show.clear()
    # The first step is slower than those after it: it is not counted among many.
    step = statistics.median(each[1:]) if len(each) > 1 else each[0]
    spread = max(each[1:], default=step) / max(min(each[1:], default=step), 1e-9)
    fixed = BEFORE_AND_AFTER
    low = FASTER * (setting.steps * step + SHORTEST_REPLIES * testing) + fixed[0]
    high = max(SLOWER, spread) * (setting.steps * step + testing) + fixed[1]
    return low, high


def _seconds(setting: Setting, model: Scorable, examples: Sequence[Example]) -> float:
    """Seconds an example takes in the benchmark, from the first batch."""
    batch = examples[: setting.recipe.eval.batch_size]
    scores = score(
        model, batch, setting.renderer, setting.metrics, decoding=setting.decoding, batch_size=len(batch)
    )  # fmt: skip
    return scores.seconds / len(batch)


def _plan(setting: Setting) -> str:
    recipe, record, facts = setting.recipe, setting.data.record, setting.facts
    trainable = setting.trainable
    on = f" on {len(setting.method.targets(facts))} layers" if setting.method.targets(facts) else ""
    rows = "  ".join(f"{split} {n:,}" for split, n in record.rows.items())
    return "\n".join(
        [
            f"recipe  {recipe.name}",
            f"base    {setting.files.name}, {setting.quantization}, {facts.parameters:,} weights",
            f"plan    {setting.method.title}{on}: {trainable:,} weights train",
            f"data    {rows}   prompts: {setting.renderer.prompt_format}",
        ]
    )


def _line(finding: Finding) -> str:
    text = f"  {finding.outcome}  {finding.code}  {finding.text}"
    return f"{text}\n              {finding.help}" if finding.help and finding.outcome != "pass" else text


def _row(setting: Setting, index: int) -> str:
    """A training row: what is learned stands in [[ ]], what is only read in << >>; coloured on a terminal."""
    row = setting.data.training[index]
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    text = ""
    for piece, learned in show_row(setting.renderer, row):
        shown = visible(piece)
        if len(shown) > LONGEST_SHOWN:
            shown = f"{shown[:LONGEST_SHOWN]} ... {len(shown) - LONGEST_SHOWN:,} characters more"
        marked = f"[[{shown}]]" if learned else f"<<{shown}>>"
        text += f"\033[{'1;32' if learned else '2'}m{marked}\033[0m" if coloured else marked
    return f"row {visible(row.id)}  (<<read>> [[learned]])\n{text}"


def _costs(predicted: ForecastRecord | None, seconds: tuple[float, float] | None, *, sound: bool, timed: bool) -> str:
    why = "not measured: something failed above" if not sound else "not measured: --no-timing"
    time_ = why
    if seconds:
        time_ = f"~{duration(seconds[0])} to {duration(seconds[1])}, from {TIMED_STEPS} timed steps here"
    free = shutil.disk_usage(".").free
    if predicted is None:
        reason = "this architecture cannot be followed without its weights"
        return "\n".join([f"memory  not measured: {reason}", f"disk    {size(free)} free", f"time    {time_}"])
    low, high = predicted.peak_bytes
    parts = ", ".join(f"{name} {size(part)}" for name, part in predicted.parts.items() if part)
    return "\n".join(
        [
            f"memory  ~{size(low)} to {size(high)}   ({parts})",
            f"disk    ~{size(predicted.disk_bytes[0])} to {size(predicted.disk_bytes[1])} of {size(free)} free",
            f"time    {time_}",
        ]
    )
