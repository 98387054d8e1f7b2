"""Whether an export is the model that was benchmarked: distances of logits, outputs and scores, and the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inlay.eval import Record
from inlay.eval.generate import generate
from inlay.eval.likelihood import answer_logits
from inlay.eval.metrics import Metric
from inlay.eval.scoring import Scorable, observing
from inlay.eval.statistics import compare, summarize
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.export.records import Distance, Proof, ScorePair
from inlay.tuner.export.witness import Questions
from inlay.tuner.records import ChangeRecord, ScoreRecord

if TYPE_CHECKING:
    from torch import Tensor

NEAR_TIE = 1e-4
SAME_KL = 1e-6  # of an fp32 export, in nats per token
LEAST_LIMIT = 1e-4  # of any other, where its dtype alone does less
MOST_LIMIT = 0.05  # of any other, whatever its dtype does
ROWS = 64  # of logits that are compared at once
SEED = 0  # of the bootstrap, as in the benchmark


@dataclass(frozen=True)
class Reference:
    """The benchmarked model, opened from disk again.

    Attributes:
        scorable: the model, left in the export's dtype.
        records, logits: what it said in fp32.
        floor: what the export's dtype alone does to it; None for fp32.
        benchmark_nll: the largest relative difference of an answer's likelihood from the run's benchmark.
        int8: how far the benchmarked model is from it, where that one rounds its activations.
    """

    scorable: Scorable
    records: tuple[Record, ...]
    logits: list[Tensor]
    floor: Distance | None
    benchmark_nll: float | None
    int8: Distance | None = None


def distance(reference: Sequence[Tensor], other: Sequence[Tensor]) -> Distance:
    """How far two models' distributions are apart.

    Args:
        reference, other: for each example logits (tokens, vocabulary) of the same positions.
    """
    import torch

    tokens = ties = same = 0
    total = most = gap = 0.0
    for first, second in _in_parts(reference, other):
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


def _in_parts(*models: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """The same few rows of each at a time: in float64 they take many times their room."""
    for example in zip(*models, strict=True):
        yield from zip(*(logits.split(ROWS) for logits in example), strict=True)


def kl_limit(floor: Distance | None) -> float:
    """How far an export may be from the reference, in nats per token: twice what its dtype alone does."""
    return min(max(2 * floor.kl_mean, LEAST_LIMIT), MOST_LIMIT) if floor else SAME_KL


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
            change=ChangeRecord(**dataclasses.asdict(change)),
        )
        for name, change in changes.items()
    }


def texts(
    reference: Reference, export: Sequence[Record], questions: Questions, renderer: Renderer
) -> tuple[int, int]:
    """How many rows have the same output in both, and, of an fp32 export, in how many others the reference itself
    passes a near tie."""
    pairs = zip(reference.records, export, strict=True)
    differing = [i for i, (a, b) in enumerate(pairs) if a.prediction != b.prediction]
    tied = 0 if reference.floor else sum(_passes_a_tie(reference, questions, renderer, i) for i in differing)
    return len(export) - len(differing), tied


def moved(scores: Mapping[str, ScorePair]) -> list[str]:
    """The scores whose paired interval excludes no change."""
    ends = {name: pair.change.ci95 for name, pair in scores.items()}
    return [name for name, found in ends.items() if found is not None and not found[0] <= 0 <= found[1]]


def faults(proved: Proof) -> list[str]:
    """What speaks against the export, each in a line; nothing where it is the benchmarked model."""
    found, said = proved.distance, []
    if not found.kl_mean <= proved.kl_limit:  # also where it is not a number
        said.append(f"KL divergence {found.kl_mean:.2g} nats per token, where {proved.kl_limit:.2g} is the limit")
    other = proved.rows - proved.same_texts - proved.tied_texts
    if proved.floor is None and found.same_top < 1:
        said.append(f"another likeliest next token at {1 - found.same_top:.2%} of the tokens")
    if proved.floor is None and other:
        said.append(f"another output in {other} of {proved.rows} rows")
    for name, change in proved.beyond_dtype.items():
        assert change.ci95 is not None
        low, high = change.ci95
        said.append(f"{name} changes by {change.value:+.3g} {change.unit} (95 % interval {low:+.3g} to {high:+.3g})")
    if other_prompts(proved):
        said.append(f"its chat template renders {other_prompts(proved)} of {proved.rows} prompts to other tokens")
    return said


def other_prompts(proved: Proof) -> int:
    """How many prompts the export's own chat template renders to other tokens than those of training."""
    return 0 if proved.same_prompts is None else proved.rows - proved.same_prompts


def _passes_a_tie(reference: Reference, questions: Questions, renderer: Renderer, index: int) -> bool:
    record, scorable = reference.records[index], reference.scorable
    if record.labels:
        first, second = sorted(record.label_nll_nats)[:2]
        return second - first < NEAR_TIE
    prompt = renderer.prompt_ids(questions.examples[index].turns)
    (written,) = generate(scorable, [prompt], questions.decoding, stop_ids=renderer.stop_ids, batch_size=1)
    with observing(scorable):
        top = next(answer_logits(scorable, [prompt], [written])).float().topk(2, -1).values
    return bool((top[:, 0] - top[:, 1] < NEAR_TIE).any())
