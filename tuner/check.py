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
from dataclasses import dataclass
from pathlib import Path

from inlay.eval.score import score
from inlay.tuner import benchmark, preflight
from inlay.tuner.console import Progressing, hushed
from inlay.tuner.data.prepared import show as show_row
from inlay.tuner.forecast import forecast
from inlay.tuner.preflight import Finding
from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.recipe import Recipe
from inlay.tuner.records import ForecastRecord
from inlay.tuner.report.figures import duration, size
from inlay.tuner.report.text import visible
from inlay.tuner.setting import Setting, survey
from inlay.tuner.signals import StopRequest
from inlay.tuner.training.engine import Listener, train

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
    show = Progressing()
    with hushed(), StopRequest():
        setting = survey(recipe)
        predicted = forecast(setting)
        found = [*preflight.findings(setting), *_room(setting, predicted)]
        sound = not any(finding.outcome == "FAIL" for finding in found)
        seconds = _timed(setting, show) if sound and timed else None
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


def forecast_run(recipe: Recipe) -> tuple[ForecastRecord, tuple[float, float]]:
    """The forecasts alone: of memory and disk, and of the run's seconds as a range."""
    with hushed(), StopRequest():
        setting = survey(recipe)
        return forecast(setting), _timed(setting, Progressing())


def explain(code: str) -> str:
    """What the finding with this code means.

    Raises:
        RequestError: there is no such code.
    """
    known = {**preflight.CHECKS, "M301": _room}
    if code not in known:
        raise RequestError(Problem(f"there is no finding `{code}`", help=f"known: {', '.join(known)}"))
    first, _, rest = (known[code].__doc__ or "").partition("\n")
    lines = [first, *(line.removeprefix("    ") for line in rest.rstrip().splitlines())]
    return f"{code}  " + "\n".join(lines).rstrip()


def _room(setting: Setting, predicted: ForecastRecord) -> list[Finding]:
    """Whether the predicted peak of memory fits into what is free.

    The peak is weights, adapter with optimizer, activations and logits of the largest batch, and the process itself.
    """
    free = _free_memory()
    low, high = predicted.peak_bytes
    asked = f"~{size(low)} to {size(high)} at the peak"
    help = _less_memory(setting)
    if free is None:
        return [Finding("warn", "M301", f"memory: {asked}; this system does not say what is free", "")]
    if low > free:
        return [Finding("FAIL", "M301", f"memory: {asked}, and {size(free)} are free", help)]
    if high > free:
        return [Finding("warn", "M301", f"memory: {asked}, and {size(free)} are free", help)]
    return [Finding("pass", "M301", f"memory: {asked} fits into {size(free)}", "")]


def _less_memory(setting: Setting) -> str:
    options = setting.recipe.train
    if options.micro_batch_size > 1 and options.micro_batch_size % 2 == 0:
        half, twice = options.micro_batch_size // 2, options.gradient_accumulation_steps * 2
        return f"the same training with less: train.micro_batch_size: {half}, gradient_accumulation_steps: {twice}"
    if not options.gradient_checkpointing and setting.method.checkpointing:
        return "set train.gradient_checkpointing: true"
    return "set train.max_length lower, or use a smaller base"


def _free_memory() -> int | None:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    with_size = Path("/proc/meminfo")
    if not with_size.is_file():
        return None
    lines = dict(line.split(":", 1) for line in with_size.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


class _Clock(Listener):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends = [time.perf_counter()]

    def stepped(self, step: int, steps: int, loss: float | None, tokens_per_second: float) -> None:
        self.ends.append(time.perf_counter())


def _timed(setting: Setting, show: Progressing) -> tuple[float, float]:
    """Seconds that the run would take, from three steps and one batch here; a range."""
    recipe = setting.recipe
    show.say("timing   three steps and one batch of the benchmark")
    base = setting.open_base()
    adapted = setting.open_adapter(base, recipe.seed)
    each = [0.0]
    if setting.method.trainable(setting.facts):
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
                listener=clock, stop=StopRequest(), folder=Path(folder),
            )  # fmt: skip
        each = [b - a for a, b in zip(clock.ends, clock.ends[1:], strict=False)]
    examples = setting.data.examples[recipe.eval.split]
    batch = examples[: recipe.eval.batch_size]
    scores = score(
        benchmark.scorable(setting, base, adapted), batch, setting.renderer, setting.metrics,
        decoding=setting.decoding, batch_size=recipe.eval.batch_size,
    )  # fmt: skip
    show.clear()
    sides = 2 if setting.method.trainable(setting.facts) else 1
    testing = scores.seconds * sides * len(examples) / len(batch)
    # The first step is slower than those after it: it is not counted among many.
    step = statistics.median(each[1:]) if len(each) > 1 else each[0]
    spread = max(each[1:], default=step) / max(min(each[1:], default=step), 1e-9)
    fixed = BEFORE_AND_AFTER
    low = FASTER * (setting.steps * step + SHORTEST_REPLIES * testing) + fixed[0]
    high = max(SLOWER, spread) * (setting.steps * step + testing) + fixed[1]
    return low, high


def _plan(setting: Setting) -> str:
    recipe, record, facts = setting.recipe, setting.data.record, setting.facts
    trainable = setting.method.trainable(facts)
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


def _costs(predicted: ForecastRecord, seconds: tuple[float, float] | None, *, sound: bool, timed: bool) -> str:
    low, high = predicted.peak_bytes
    parts = ", ".join(f"{name} {size(part)}" for name, part in predicted.parts.items() if part)
    why = "not measured: something failed above" if not sound else "not measured: --no-timing"
    time_ = why
    if seconds:
        time_ = f"~{duration(seconds[0])} to {duration(seconds[1])}, from {TIMED_STEPS} timed steps here"
    free = shutil.disk_usage(".").free
    return "\n".join(
        [
            f"memory  ~{size(low)} to {size(high)}   ({parts})",
            f"disk    ~{size(predicted.disk_bytes)} of {size(free)} free",
            f"time    {time_}",
        ]
    )
