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
class Untouched:
    """What was measured of the base alone; `few_shot` is None where no examples were shown."""

    base: Report
    few_shot: Report | None


@dataclass(frozen=True)
class Benchmark:
    """What was measured; `tuned` is None where nothing was trained, `noise` where the base was measured before."""

    tuned: Report | None
    untouched: Untouched
    change: Mapping[str, Change]
    few_shot_change: Mapping[str, Change]
    noise: Noise | None
    seconds: float
    peak_bytes: int
    dtype: str


def measure(
    setting: Setting,
    base: Base,
    adapted: Adapted,
    *,
    trained: bool,
    progress: Progress,
    known: Untouched | None = None,
) -> Benchmark:
    """Scores the recipe's split, with the adapter and with it disabled.

    Args:
        trained: the adapter differs from its start; otherwise the base alone is scored.
        known: what was measured of this very base on this split before; it is not measured again.

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
            noise = None
            if known is None:
                noise = measure_noise(own, examples, setting.renderer, decoding=setting.decoding, batch_size=size)
                known = _score_untouched(setting, own, adapted, progress)
            change = compare(setting.metrics, tuned.records, known.base.records, seed=SEED) if tuned else {}
            both = tuned and known.few_shot
            further = compare(setting.metrics, tuned.records, known.few_shot.records, seed=SEED) if both else {}
    except MeasurementError as error:
        raise AnswerNo(f"the benchmark could not be measured: {error}") from error
    except torch.OutOfMemoryError as error:
        first = str(error).splitlines()[0]
        help = f"set eval.batch_size: {size // 2 or 1}"
        raise MachineError(f"out of memory in the benchmark: {first}", help=help) from error
    # Of the logits: full fine-tuning computes in fp32 on a base that was loaded for bf16.
    dtype = dtype_name(own.inner.get_output_embeddings().weight.dtype)
    return Benchmark(tuned, known, change, further, noise, time.perf_counter() - started, peak.bytes, dtype)


def scorable(setting: Setting, base: Base, adapted: Adapted) -> Scorable:
    """The adapted model as the benchmark takes it."""
    return Scorable(adapted.model, adapted.inner, base.facts.kind, setting.method.prepends, setting.pad_id)


def _score_untouched(setting: Setting, own: Scorable, adapted: Adapted, progress: Progress) -> Untouched:
    """The base alone, as it is and, where that is asked for, shown examples: zero-shot is a straw man."""
    with adapted.disabled():
        untouched = dataclasses.replace(own, prepends="nothing")
        plain = _score(setting, untouched, lambda *step: progress("base: " + step[0], *step[1:]))
        examples = setting.few_shot()
        if not examples:
            return Untouched(plain, None)
        shown = _score(setting, untouched, lambda *step: progress("base with examples", *step[1:]), examples)
        return Untouched(plain, shown)


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
        base=_score_records(result.untouched.base.scores),
        change=_change_records(result.change),
        few_shot=_score_records(result.untouched.few_shot.scores) if result.untouched.few_shot else {},
        few_shot_change=_change_records(result.few_shot_change),
    )


def eval_record(setting: Setting, result: Benchmark) -> EvalRecord:
    """How the benchmark was made, as run.json holds it."""
    reports = [report for report in (result.tuned, result.untouched.base) if report]
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
        noise=NoiseRecord(**dataclasses.asdict(result.noise), dtype=result.dtype) if result.noise else None,
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
    base, shown = result.untouched.base, result.untouched.few_shot
    tuned = result.tuned or base
    lines = []
    for i, (example, new, old) in enumerate(
        zip(setting.data.examples[setting.recipe.eval.split], tuned.records, base.records, strict=True)
    ):
        third = shown.records[i] if shown else None
        lines.append(
            Prediction(
                id=example.id,
                prompt=setting.renderer.prompt_text(example.turns) if example.turns else "",
                references=list(new.references),
                reference_bytes=new.reference_bytes,
                tokens=new.tokens,
                prediction=new.prediction,
                base_prediction=old.prediction,
                few_shot_prediction=third.prediction if third else None,
                finished=new.finished,
                base_finished=old.finished,
                few_shot_finished=third.finished if third else None,
                nll_nats=new.nll_nats,
                base_nll_nats=old.nll_nats,
                few_shot_nll_nats=third.nll_nats if third else None,
                scores={name: values[i] for name, values in tuned.example_scores.items()},
                base_scores={name: values[i] for name, values in base.example_scores.items()},
                label_tokens=list(new.label_tokens),
                label_nll_nats=list(new.label_nll_nats),
                base_label_nll_nats=list(old.label_nll_nats),
                few_shot_label_nll_nats=list(third.label_nll_nats) if third else [],
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
