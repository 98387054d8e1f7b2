"""Scores a model on examples: runs what the metrics need, and gives each number its interval."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inlay.eval import Choice, Decoding, Example, MeasurementError, Record, Reply, Report, Text
from inlay.eval.generate import generate_and_score
from inlay.eval.likelihood import score_choices, score_examples
from inlay.eval.metrics import Metric
from inlay.eval.scoring import Rendering, Scorable
from inlay.eval.statistics import summarize

# (what is being done, done so far, in all)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Noise:
    """What batching alone does to the results of one model: batch 1 against the benchmark's batch size.

    Attributes:
        rows: examples looked at.
        identical_texts: how many of them have the same generated text.
        nll_relative: largest relative difference of an answer's negative log-likelihood.
    """

    rows: int
    identical_texts: int
    nll_relative: float


def score(
    scorable: Scorable,
    examples: Sequence[Example],
    render: Rendering,
    metrics: Sequence[Metric],
    *,
    decoding: Decoding,
    batch_size: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Benchmarks a model.

    Args:
        examples: all of one kind.
        render: the rendering that the model was trained with.
        metrics: what is computed from the records.
        decoding: for generated text.
        batch_size: rows at once.
        seed: of the bootstrap.
        progress: hears of the work as it goes.

    Returns:
        Scores with intervals over examples, and every example's record, in the order of `examples`.

    Raises:
        MeasurementError: there are no examples, a likelihood is not finite, or a metric needs what the examples lack.
    """
    if not examples:
        raise MeasurementError("there are no examples to score")
    _require_measurable(examples, metrics)
    started = time.perf_counter()
    report = progress or (lambda what, done, total: None)
    if isinstance(examples[0], Choice):
        records = _choose(scorable, examples, render, batch_size, report)
    elif isinstance(examples[0], Text):
        records = _read(scorable, examples, render, batch_size, report)
    else:
        records = _reply(scorable, examples, render, decoding, batch_size, report)
    seconds = time.perf_counter() - started
    scores, example_scores = summarize(metrics, records, seed=seed)
    return Report(
        scores=scores,
        records=records,
        example_scores=example_scores,
        tokens_scored=sum(record.tokens for record in records),
        seconds=seconds,
        decoding=decoding.signature(),
        batch_size=batch_size,
    )


def measure_noise(
    scorable: Scorable,
    examples: Sequence[Example],
    render: Rendering,
    *,
    decoding: Decoding,
    batch_size: int,
    rows: int = 8,
) -> Noise:
    """Scores the first `rows` examples one at a time and batched, and tells how far the two are apart.

    Texts are generated without sampling, whatever `decoding` says: draws differ between batches by nature.
    """
    decoding = dataclasses.replace(decoding, do_sample=False)
    some, sizes = examples[:rows], (1, batch_size)
    identical = len(some)
    if isinstance(some[0], Reply):
        ways = [_written(scorable, some, render, decoding, size) for size in sizes]
        identical = sum(render.decode(a[0]) == render.decode(b[0]) for a, b in zip(*ways, strict=True))
        ways = [[(nll, tokens) for _, nll, tokens in way] for way in ways]
    else:
        ways = [score_examples(scorable, some, render, batch_size=size) for size in sizes]
    relative = max(abs(a - b) / max(abs(a), 1e-12) for (a, _), (b, _) in zip(*ways, strict=True))
    return Noise(len(some), identical, relative)


def _require_measurable(examples: Sequence[Example], metrics: Sequence[Metric]) -> None:
    has = {"likelihood", {Choice: "choice", Reply: "text"}.get(type(examples[0]))}
    for metric in metrics:
        if metric.needs not in has:
            wanted = {"choice": "a choice among labels", "text": "generated text"}[metric.needs]
            raise MeasurementError(f"{'/'.join(metric.scores)} needs {wanted}, which this task does not have")


def _reply(
    scorable: Scorable,
    examples: Sequence[Example],
    render: Rendering,
    decoding: Decoding,
    batch_size: int,
    progress: Progress,
) -> list[Record]:
    progress("generating", 0, len(examples))
    found = _written(
        scorable, examples, render, decoding, batch_size, lambda done: progress("generating", done, len(examples))
    )
    _require_finite(examples, [nll for _, nll, _ in found])
    return [
        Record(
            id=example.id,
            references=example.references,
            prediction=render.decode(ids),
            finished=bool(ids) and ids[-1] in render.stop_ids,
            nll_nats=nll,
            tokens=tokens,
            reference_bytes=len(example.answer.encode()),
        )
        for example, (ids, nll, tokens) in zip(examples, found, strict=True)
    ]


def _written(
    scorable: Scorable,
    examples: Sequence[Reply],
    render: Rendering,
    decoding: Decoding,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[list[int], float, int]]:
    """For each example the ids of the model's reply, and of its answer the negative log-likelihood and the tokens."""
    answers = [render.answer_ids(example.turns, example.answer) for example in examples]
    written, sums = generate_and_score(
        scorable,
        [render.prompt_ids(example.turns) for example in examples],
        answers,
        decoding,
        stop_ids=render.stop_ids,
        batch_size=batch_size,
        progress=progress,
    )
    return list(zip(written, sums, map(len, answers), strict=True))


def _read(
    scorable: Scorable, examples: Sequence[Text], render: Rendering, batch_size: int, progress: Progress
) -> list[Record]:
    """Nothing precedes the first token of a text without a start token, so there it is read, and not scored."""
    progress("likelihood", 0, len(examples))
    likelihoods = score_examples(scorable, examples, render, batch_size=batch_size)
    _require_finite(examples, [nll for nll, _ in likelihoods])
    return [
        Record(
            id=example.id,
            references=example.references,
            prediction="",
            finished=True,
            nll_nats=nll,
            tokens=tokens,
            reference_bytes=len(example.text.encode()) - len(render.unscored(example.text).encode()),
        )
        for example, (nll, tokens) in zip(examples, likelihoods, strict=True)
    ]


def _choose(
    scorable: Scorable, examples: Sequence[Choice], render: Rendering, batch_size: int, progress: Progress
) -> list[Record]:
    prompts = [render.prompt_ids(example.turns) for example in examples]
    labels = [[render.answer_ids(e.turns, label) for label in e.labels] for e in examples]
    progress("labels", 0, len(examples))
    sums = score_choices(scorable, prompts, labels, batch_size=batch_size)
    _require_finite(examples, [sum(row) for row in sums])
    records = []
    for example, ids, row in zip(examples, labels, sums, strict=True):
        chosen = min(range(len(row)), key=row.__getitem__)
        records.append(
            Record(
                id=example.id,
                references=(example.answer,),
                prediction=example.labels[chosen],
                finished=True,
                nll_nats=row[example.gold],
                tokens=len(ids[example.gold]),
                reference_bytes=len(example.answer.encode()),
                labels=example.labels,
                label_nll_nats=tuple(row),
                label_tokens=tuple(map(len, ids)),
                gold=example.gold,
                chosen=chosen,
            )
        )
    return records


def _require_finite(examples: Sequence[Example], sums: Sequence[float]) -> None:
    bad = [example.id for example, nll in zip(examples, sums, strict=True) if not math.isfinite(nll)]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise MeasurementError(
            f"the likelihood of {len(bad)} of {len(examples)} answers is not finite (rows {', '.join(bad[:3])}{more})"
        )
