"""The benchmark of a run: the adapted model and the untouched base, on the same examples, by the same path."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inlay.adapters import Adapted
from inlay.eval import Change, Example, MeasurementError, Report, Score, Text
from inlay.eval.score import Noise, Progress, measure_noise, score
from inlay.eval.scoring import Scorable
from inlay.eval.statistics import compare
from inlay.tuner.base import Base, dtype_name
from inlay.tuner.meter import PeakMemory
from inlay.tuner.problems import AnswerNo, MachineError
from inlay.tuner.records import ChangeRecord, EvalRecord, Metrics, NoiseRecord, Prediction, ScoreRecord
from inlay.tuner.setting import Setting

SEED = 0  # of the bootstrap: the same scores give the same intervals, whatever the recipe's seed


@dataclass(frozen=True)
class Benchmark:
    """What was measured; `tuned` is None where nothing was trained, `few_shot` where no examples were shown."""

    tuned: Report | None
    base: Report
    change: Mapping[str, Change]
    few_shot: Report | None
    few_shot_change: Mapping[str, Change]
    noise: Noise
    seconds: float
    peak_bytes: int
    dtype: str


def measure(setting: Setting, base: Base, adapted: Adapted, *, trained: bool, progress: Progress) -> Benchmark:
    """Scores the recipe's split, with the adapter and with it disabled.

    Args:
        trained: the adapter differs from its start; otherwise the base alone is scored.

    Raises:
        AnswerNo: a score could not be measured.
        MachineError: memory did not suffice.
    """
    import torch

    examples = setting.data.examples[setting.recipe.eval.split]
    size = setting.recipe.eval.batch_size
    own = scorable(setting, base, adapted)
    started = time.perf_counter()
    try:
        with PeakMemory(base.device) as peak:
            tuned = None
            if trained:
                tuned = _score(setting, own, lambda *step: progress("tuned: " + step[0], *step[1:]))
            noise = measure_noise(own, examples, setting.renderer, decoding=setting.decoding, batch_size=size)
            with adapted.disabled():
                untouched = dataclasses.replace(own, prepends="nothing")
                plain = _score(setting, untouched, lambda *step: progress("base: " + step[0], *step[1:]))
                shown = _score_few_shot(setting, untouched, lambda *step: progress("base with examples", *step[1:]))
            change = compare(setting.metrics, tuned.records, plain.records, seed=SEED) if tuned else {}
            both = tuned and shown
            further = compare(setting.metrics, tuned.records, shown.records, seed=SEED) if both else {}
    except MeasurementError as error:
        raise AnswerNo(f"the benchmark could not be measured: {error}") from error
    except torch.OutOfMemoryError as error:
        first = str(error).splitlines()[0]
        help = f"set eval.batch_size: {size // 2 or 1}"
        raise MachineError(f"out of memory in the benchmark: {first}", help=help) from error
    # Of the logits: full fine-tuning computes in fp32 on a base that was loaded for bf16.
    dtype = dtype_name(own.inner.get_output_embeddings().weight.dtype)
    return Benchmark(tuned, plain, change, shown, further, noise, time.perf_counter() - started, peak.bytes, dtype)


def scorable(setting: Setting, base: Base, adapted: Adapted) -> Scorable:
    """The adapted model as the benchmark takes it."""
    return Scorable(adapted.model, adapted.inner, base.facts.kind, setting.method.prepends, setting.pad_id)


def _score_few_shot(setting: Setting, model: Scorable, progress: Progress) -> Report | None:
    """The untouched base, shown examples: zero-shot is a straw man."""
    examples = setting.few_shot()
    return _score(setting, model, progress, examples) if examples else None


def _score(
    setting: Setting, model: Scorable, progress: Progress, examples: Sequence[Example] | None = None
) -> Report:
    return score(
        model,
        examples or setting.data.examples[setting.recipe.eval.split],
        setting.renderer,
        setting.metrics,
        decoding=setting.decoding,
        batch_size=setting.recipe.eval.batch_size,
        seed=SEED,
        progress=progress,
    )


def metric_records(result: Benchmark) -> Metrics:
    """The scores as run.json holds them."""
    return Metrics(
        tuned=_score_records(result.tuned.scores) if result.tuned else {},
        base=_score_records(result.base.scores),
        change=_change_records(result.change),
        few_shot=_score_records(result.few_shot.scores) if result.few_shot else {},
        few_shot_change=_change_records(result.few_shot_change),
    )


def eval_record(setting: Setting, result: Benchmark) -> EvalRecord:
    """How the benchmark was made, as run.json holds it."""
    reports = [report for report in (result.tuned, result.base) if report]
    labels, tokens, confusion = _confusion(reports[0])
    return EvalRecord(
        split=setting.recipe.eval.split,
        rows=len(reports[0].records),
        tokens_scored=reports[0].tokens_scored,
        decoding=_manner(setting, reports[0]),
        batch_size=reports[0].batch_size,
        language=setting.language,
        seconds=result.seconds,
        peak_bytes=result.peak_bytes,
        few_shot=[example.id for example in setting.data.shown],
        noise=NoiseRecord(**dataclasses.asdict(result.noise), dtype=result.dtype),
        labels=labels,
        label_tokens=tokens,
        per_token_accuracy=_per_token_accuracy(reports[0]) if labels else None,
        confusion=confusion,
    )


def _manner(setting: Setting, report: Report) -> str:
    """How text was generated, or how texts were read."""
    if not isinstance(setting.data.examples[setting.recipe.eval.split][0], Text):
        return report.decoding
    return f"windows of {setting.renderer.window} tokens that begin {setting.renderer.stride} apart"


def predictions(setting: Setting, result: Benchmark) -> list[Prediction]:
    """The lines of predictions.jsonl, in the order of the split."""
    tuned = result.tuned or result.base
    lines = []
    for i, (example, new, old) in enumerate(
        zip(setting.data.examples[setting.recipe.eval.split], tuned.records, result.base.records, strict=True)
    ):
        lines.append(
            Prediction(
                id=example.id,
                prompt=setting.renderer.prompt_text(example.turns) if example.turns else "",
                references=list(new.references),
                prediction=new.prediction,
                base_prediction=old.prediction,
                few_shot_prediction=result.few_shot.records[i].prediction if result.few_shot else None,
                finished=new.finished,
                base_finished=old.finished,
                scores={name: values[i] for name, values in tuned.example_scores.items()},
                base_scores={name: values[i] for name, values in result.base.example_scores.items()},
                label_nll_nats=list(new.label_nll_nats),
            )
        )
    return lines


def _change_records(changes: Mapping[str, Change]) -> dict[str, ChangeRecord]:
    return {name: ChangeRecord(**dataclasses.asdict(change)) for name, change in changes.items()}


def _score_records(scores: Mapping[str, Score]) -> dict[str, ScoreRecord]:
    return {name: ScoreRecord(**dataclasses.asdict(score)) for name, score in scores.items()}


def _per_token_accuracy(report: Report) -> float:
    """Accuracy in % if a label's likelihood were taken per token, so that long labels are not at a disadvantage."""
    right = 0
    for record in report.records:
        means = [nll / n for nll, n in zip(record.label_nll_nats, record.label_tokens, strict=True)]
        right += means.index(min(means)) == record.gold
    return 100 * right / len(report.records)


def _confusion(report: Report) -> tuple[list[str], list[int], list[list[int]]]:
    """Labels, their lengths in tokens (of the first example), and counts [gold][chosen]; empty without labels."""
    labels = report.records[0].labels
    counts = [[0] * len(labels) for _ in labels]
    for record in report.records if labels else ():
        counts[record.gold][record.chosen] += 1
    return list(labels), list(report.records[0].label_tokens), counts
