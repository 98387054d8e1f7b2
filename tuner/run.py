"""`inlay run`: from a recipe to a benchmarked adapter and its page."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import inlay
from inlay.adapters import Adapted
from inlay.eval.likelihood import score_examples
from inlay.eval.metrics import find as find_metric
from inlay.eval.score import score
from inlay.tuner import benchmark, preflight
from inlay.tuner.adapter_folder import weights_sha256, write_base
from inlay.tuner.base import Base
from inlay.tuner.console import Progressing, hushed
from inlay.tuner.environment import describe
from inlay.tuner.forecast import forecast
from inlay.tuner.problems import Failure, RequestError
from inlay.tuner.recipe import Recipe, recipe_hash, resolved_yaml
from inlay.tuner.records import AdapterRecord, BaseRecord, RunRecord, TrainRecord, TrainRow
from inlay.tuner.report import read_record, write_page
from inlay.tuner.run_directory import RunDirectory, free_path
from inlay.tuner.setting import Setting, survey
from inlay.tuner.signals import StopRequest
from inlay.tuner.training.engine import Listener, Trained, Validation, train
from inlay.tuner.training.flat import possible


def run(recipe: Recipe, *, output: Path | None, again: bool, command: str) -> Path:
    """Trains what the recipe says, benchmarks it against the untouched base, and writes the run's folder.

    Args:
        output: the folder; by default `runs/<name>-<hash>`, with a number behind it if that is taken.
        again: start anew even if the same recipe is done already.
        command: what the user typed, for the record.

    Returns:
        The run's folder: the finished one, where the same recipe was done before.

    Raises:
        Failure: the request, the machine or the outcome was wrong; a folder that was begun says so.
    """
    started = time.time()
    digest = recipe_hash(recipe)
    path, used = (output, []) if output else free_path(recipe.name, digest)
    show = Progressing()
    with hushed(), StopRequest() as stop:
        setting = survey(recipe)
        done = None if again else _finished(used, setting, digest)
        if done:
            show.say(f"this recipe is done already, on the same data and base; --again starts a new run ({done})")
            return done
        _announce(setting, show)
        folder = RunDirectory.create(path, begin(path, recipe, digest, command), resolved_yaml(setting.recipe))
        with labelled(folder, started, show):
            _work(setting, folder, show, stop)
            show.clear()
            folder.update(status="complete", seconds=time.time() - started)
        write_page(folder.path)
    return folder.path


def _work(setting: Setting, folder: RunDirectory, show: Progressing, stop: StopRequest) -> None:
    """Everything from loading the weights to the scores; each part is recorded when it is done."""
    recipe = setting.recipe
    predicted = forecast(setting) if setting.trainable else None
    finding = preflight.room(setting, predicted)
    show.say(f"{'memory ' if finding.outcome == 'pass' else 'warning'}  {finding.text.removeprefix('memory: ')}")
    base = setting.open_base()
    folder.update(
        base=base_record(setting, base),
        data=setting.data.record,
        forecast=predicted,
        environment=describe(base.device),
    )
    adapted = setting.open_adapter(base, recipe.seed)
    train_and_measure(setting, folder, base, adapted, show=show, stop=stop)


def train_and_measure(
    setting: Setting,
    folder: RunDirectory,
    base: Base,
    adapted: Adapted,
    *,
    show: Progressing,
    stop: StopRequest,
    known: benchmark.Untouched | None = None,
) -> benchmark.Benchmark:
    """Trains what can train, saves the adapter, benchmarks it; the folder records each part when it is done.

    Args:
        adapted: a fresh adapter on `base`, or the one that training starts from.
        known: what was measured of this very base before.

    Raises:
        Failure: training or the benchmark went wrong.
        Interrupted: stopped by a signal; the adapter of the last step is saved.
    """
    trainable = sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)
    share = _share(setting, trainable)
    show.say(f"adapter  {setting.method.title}: {trainable:,} weights train, {share:.2%} of all")
    trained = None
    if trainable:
        trained = train_adapter(setting, folder, base, adapted, validation(setting, base, adapted), show, stop)
    adapted.save(folder.path / "adapter")
    write_base(folder.path / "adapter", base)
    folder.update(
        train=train_record(setting, trained) if trained else None,
        adapter=adapter_record(setting, trainable, folder.path / "adapter"),
    )
    if stop.asked:
        assert trained is not None
        kept = trained.best_step or trained.steps
        where = f"{folder.path}/adapter"
        raise stop.stopped(f"stopped after step {trained.steps}; the adapter of step {kept} is in {where}")
    result = benchmark.measure(setting, base, adapted, trained=bool(trainable), progress=show.step, known=known)
    folder.write_predictions(benchmark.predictions(setting, result))
    folder.update(eval=benchmark.eval_record(setting, result), metrics=benchmark.metric_records(result))
    return result


def train_adapter(
    setting: Setting,
    folder: RunDirectory,
    base: Base,
    adapted: Adapted,
    checked: Validation | None,
    show: Progressing,
    stop: StopRequest,
) -> Trained:
    """Trains the adapter in place, logging to the folder; a first signal ends it after the step in hand."""
    stop.deferred = True
    try:
        return train(
            adapted,
            setting.data.training,
            setting.recipe.train,
            seed=setting.recipe.seed,
            learning_rate=setting.learning_rate,
            pad_id=setting.pad_id,
            start_id=setting.start_id(base),
            device=base.device,
            validation=checked,
            listener=_Telling(folder, show),
            stop=stop,
            folder=folder.path,
            name=folder.record.id,
            flat=possible(benchmark.scorable(setting, base, adapted), setting.recipe.train),
        )
    finally:
        stop.deferred = False


def validation(setting: Setting, base: Base, adapted: Adapted) -> Validation | None:
    """What is measured on the validation rows while training: the answer loss, or the metric that the recipe names."""
    options = setting.recipe.train
    if options.eval_steps is None:
        return None
    examples = setting.data.examples["validation"]
    model = benchmark.scorable(setting, base, adapted)
    size = setting.recipe.eval.batch_size
    name = options.early_stopping_metric or "loss"
    metric = None if name == "loss" else find_metric(name)(setting.language)
    first = metric.scores[0] if metric else "loss"

    def measure() -> Mapping[str, float]:
        if metric is not None:
            report = score(
                model, examples, setting.renderer, [metric], decoding=setting.decoding, batch_size=size
            )
            return {name: found.value for name, found in report.scores.items()}
        found = score_examples(model, examples, setting.renderer, batch_size=size)
        return {"loss": sum(nll for nll, _ in found) / sum(tokens for _, tokens in found)}

    higher = bool(metric.higher_is_better) if metric else False
    return Validation(measure, first, higher, options.eval_steps, options.early_stopping_patience)


class _Telling(Listener):
    """Writes train.jsonl and moves the progress line."""

    def __init__(self, folder: RunDirectory, show: Progressing) -> None:
        self.folder, self.show = folder, show

    def logged(self, row: TrainRow) -> None:
        self.folder.log(row)

    def stepped(self, step: int, steps: int, loss: float | None, tokens_per_second: float) -> None:
        known = f"loss {loss:.3f}  " if loss is not None else ""
        self.show.step("training", step, steps, f"{known}{tokens_per_second:,.0f} tokens/s")


@contextlib.contextmanager
def labelled(folder: RunDirectory, started: float, show: Progressing) -> Iterator[None]:
    """Whatever ends a run early, its folder says what and why."""
    try:
        yield
    except BaseException as error:
        show.clear()
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = error.problems[0].message if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
        if interrupted:
            reason = str(error) or "interrupted"
        status = "interrupted" if interrupted else "failed"
        folder.update(status=status, reason=reason, seconds=time.time() - started)
        write_page(folder.path)
        raise


def _finished(paths: list[Path], setting: Setting, digest: str) -> Path | None:
    """The newest complete run among the folders that had the same recipe, data, base and version of inlay."""
    wanted = (digest, setting.data.record.sha256, inlay.__version__, setting.start_sha256)
    for path in reversed(paths):
        with contextlib.suppress(RequestError):
            record = read_record(path)
            if record.status != "complete" or not (record.data and record.base and record.environment):
                continue
            started = record.adapter.start_sha256 if record.adapter else ""
            found = (record.recipe_hash, record.data.sha256, record.environment.versions["inlay"], started)
            if found == wanted and record.base.sha256 == setting.files.sha256():
                return path
    return None


def begin(path: Path, recipe: Recipe, digest: str, command: str) -> RunRecord:
    """What run.json says before anything has happened."""
    return RunRecord(
        id=path.name,
        name=recipe.name,
        task=recipe.task.type,
        status="running",
        reason="",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        seed=recipe.seed,
        recipe_hash=digest,
        command=command,
    )


def _announce(setting: Setting, show: Progressing) -> None:
    """What will be trained on what, before anything is loaded, and what the preflight has to say."""
    recipe, record = setting.recipe, setting.data.record
    rows = "  ".join(f"{split} {n:,}" for split, n in record.rows.items())
    bits = recipe.base.quantization.bits
    show.say(f"base     {setting.files.name}, {setting.facts.parameters:,} weights, {bits} bit")
    show.say(f"data     {rows}  trained tokens {record.trained_tokens:,}  prompts: {setting.renderer.prompt_format}")
    for finding in preflight.findings(setting):
        if finding.outcome != "pass":
            show.say(f"{'warning' if finding.outcome == 'warn' else 'WARNING'}  {finding.text} ({finding.code})")


def base_record(setting: Setting, base: Base) -> BaseRecord:
    """The base as run.json holds it."""
    return BaseRecord(
        model=base.files.name,
        revision=base.files.revision,
        sha256=base.sha256,
        model_type=base.facts.model_type,
        quantization=str(base.quantization),
        compute_dtype=base.compute_dtype,
        parameters=base.facts.parameters,
        bytes=base.bytes,
        plain_bytes=base.plain_bytes,
        prompt_format=setting.renderer.prompt_format,
    )


def adapter_record(setting: Setting, trainable: int, saved: Path) -> AdapterRecord:
    """The adapter in the folder `saved` as run.json holds it."""
    return AdapterRecord(
        method=setting.recipe.adapter.method,
        title=setting.method.title,
        options=setting.recipe.adapter.options.model_dump(mode="json"),
        trainable_parameters=trainable,
        share=_share(setting, trainable),
        sha256=weights_sha256(saved),
        start_sha256=setting.start_sha256,
        bytes=sum(file.stat().st_size for file in saved.iterdir()),
    )


def _share(setting: Setting, trainable: int) -> float:
    """Trainable weights among all, the adapter's own included."""
    own = 0 if setting.method.needs_float_weights else trainable
    return trainable / (setting.facts.parameters + own)


def train_record(setting: Setting, trained: Trained) -> TrainRecord:
    """What training did, as run.json holds it."""
    return TrainRecord(
        steps=trained.steps,
        rows_seen=trained.rows_seen,
        tokens=trained.tokens,
        trained_tokens=trained.trained_tokens,
        seconds=trained.seconds,
        tokens_per_second=trained.tokens / trained.seconds if trained.seconds else 0.0,
        peak_bytes=trained.peak_bytes,
        learning_rate=setting.learning_rate,
        first_loss=trained.first_loss,
        last_loss=trained.last_loss,
        best_step=trained.best_step,
        stopped_early=trained.stopped_early,
    )
