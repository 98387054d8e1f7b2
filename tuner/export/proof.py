"""Whether an export is the model that was benchmarked: distances of logits, outputs and scores, and the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inlay.eval import Change, Record
from inlay.eval.generate import generate
from inlay.eval.likelihood import answer_logits
from inlay.eval.metrics import Metric
from inlay.eval.scoring import Scorable, observing
from inlay.eval.statistics import compare, summarize
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.export.records import Distance, ScorePair
from inlay.tuner.export.witness import Questions
from inlay.tuner.records import ChangeRecord, ScoreRecord

if TYPE_CHECKING:
    from torch import Tensor

NEAR_TIE = 1e-4
SAME_KL = 1e-6  # of an fp32 export, in nats per token
LEAST_LIMIT = 1e-4  # of any other, where its dtype alone does less
SEED = 0  # of the bootstrap, as in the benchmark


def distance(reference: Sequence[Tensor], other: Sequence[Tensor]) -> Distance:
    """How far two models' distributions are apart.

    Args:
        reference, other: for each example logits (tokens, vocabulary) of the same positions.
    """
    import torch

    tokens = ties = same = 0
    total = most = gap = 0.0
    for first, second in zip(reference, other, strict=True):
        p, q = (torch.log_softmax(logits.double(), -1) for logits in (first, second))
        divergence = (p.exp() * (p - q)).sum(-1).clamp(min=0)
        top = first.topk(2, -1)
        near = top.values[:, 0] - top.values[:, 1] < NEAR_TIE
        same += int(((top.indices[:, 0] == second.argmax(-1)) & ~near).sum())
        ties += int(near.sum())
        tokens += len(first)
        total += float(divergence.sum())
        most = max(most, float(divergence.max()))
        gap = max(gap, float((first - second).abs().max()))
    return Distance(
        examples=len(reference),
        tokens=tokens,
        same_top=same / (tokens - ties) if tokens > ties else 1.0,
        near_ties=ties,
        kl_mean=total / tokens,
        kl_max=most,
        logit_gap=gap,
    )


def kl_limit(floor: Distance | None) -> float:
    """How far an export may be from the reference, in nats per token: twice what its dtype alone does."""
    return max(2 * floor.kl_mean, LEAST_LIMIT) if floor else SAME_KL


def score_pairs(
    metrics: Sequence[Metric], reference: Sequence[Record], export: Sequence[Record]
) -> dict[str, ScorePair]:
    """Every score of both models with the paired change, by name."""
    changes = compare(metrics, export, reference, seed=SEED)
    (before, _), (after, _) = (summarize(metrics, records, seed=SEED) for records in (reference, export))
    return {
        name: ScorePair(
            reference=ScoreRecord(**dataclasses.asdict(before[name])),
            export=ScoreRecord(**dataclasses.asdict(after[name])),
            change=_change_record(change),
        )
        for name, change in changes.items()
    }


def texts(
    reference: Sequence[Record],
    export: Sequence[Record],
    scorable: Scorable,
    questions: Questions,
    renderer: Renderer,
) -> tuple[int, int]:
    """How many rows have the same output in both, and in how many others the reference itself passes a near tie.

    Args:
        scorable: the reference, in fp32.
    """
    differing = [i for i, (a, b) in enumerate(zip(reference, export, strict=True)) if a.prediction != b.prediction]
    tied = sum(_passes_a_tie(reference[i], scorable, questions, renderer, i) for i in differing)
    return len(reference) - len(differing), tied


def faults(
    *,
    dtype: str,
    found: Distance,
    floor: Distance | None,
    differing_texts: int,
    scores: dict[str, ScorePair],
    rows: int,
    same_prompts: int | None,
) -> list[str]:
    """What speaks against the export, each in a line; nothing where it is the benchmarked model."""
    said = []
    limit = kl_limit(floor)
    if found.kl_mean > limit:
        said.append(f"KL divergence {found.kl_mean:.2g} nats per token, where {limit:.2g} is the limit")
    if floor is None and found.same_top < 1:
        said.append(f"another likeliest next token at {1 - found.same_top:.2%} of the tokens")
    if floor is None and differing_texts:
        said.append(f"another output in {differing_texts} of {rows} rows")
    for name, pair in scores.items():
        ends = pair.change.ci95
        if ends is not None and not ends[0] <= 0 <= ends[1]:
            said.append(
                f"{name} changes by {pair.change.value:+.3g} {pair.change.unit} "
                f"(95 % interval {ends[0]:+.3g} to {ends[1]:+.3g})"
            )
    if same_prompts is not None and same_prompts < rows:
        said.append(f"its chat template renders {rows - same_prompts} of {rows} prompts to other tokens")
    return said


def benchmark_distance(records: Sequence[Record], nll_nats: dict[str, float]) -> float:
    """The largest relative difference of an answer's likelihood, against the run's benchmark.

    Args:
        nll_nats: of the run's predictions, by the example's id.
    """
    return max(abs(r.nll_nats - nll_nats[r.id]) / max(abs(nll_nats[r.id]), 1e-6) for r in records)


def _passes_a_tie(record: Record, scorable: Scorable, questions: Questions, renderer: Renderer, index: int) -> bool:
    if record.labels:
        first, second = sorted(record.label_nll_nats)[:2]
        return second - first < NEAR_TIE
    prompt = renderer.prompt_ids(questions.examples[index].turns)
    (written,) = generate(scorable, [prompt], questions.decoding, stop_ids=renderer.stop_ids, batch_size=1)
    with observing(scorable):
        top = next(answer_logits(scorable, [prompt], [written])).float().topk(2, -1).values
    return bool((top[:, 0] - top[:, 1] < NEAR_TIE).any())


def _change_record(change: Change) -> ChangeRecord:
    return ChangeRecord(**dataclasses.asdict(change))


