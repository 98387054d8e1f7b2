"""What the example browser of the page shows: each example with the reply and the score of every row.

Rows are joined by the id of the example, so two rows can never be shown on different prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from inlay.tuner.comparison.page.files import ComparisonFiles
from inlay.tuner.comparison.records import ComparisonRecord, RowRecord
from inlay.tuner.comparison.standing import slugs, stand
from inlay.tuner.records import Prediction
from inlay.tuner.report.figures import plain
from inlay.tuner.report.page import language_tag
from inlay.tuner.report.replies import spread
from inlay.tuner.report.scores import score_name
from inlay.tuner.report.text import clip, one_line, visible

_MOST_EXAMPLES = 2_000
_LONGEST_PROMPT, _LONGEST_REPLY = 2_000, 1_200  # characters
_SHOWN = 8


@dataclass(frozen=True)
class Shared:
    """An example that every row answered: the replies of each row's first seed (in the order of the rows), and by
    score the mean over each row's seeds (None where the row has no score of single examples)."""

    id: str
    prompt: str
    references: list[str]
    replies: list[str]
    finished: list[bool]
    scores: dict[str, list[float | None]]


@dataclass(frozen=True)
class Examples:
    """The examples by id. `keys`: scores that single examples have, the main one first; `total` of them, before any
    limit."""

    rows: list[RowRecord]
    keys: list[str]
    shown: list[Shared]
    total: int


@dataclass(frozen=True)
class Article:
    """An example for readers without a script: `replies` are label, text, score as printed."""

    id: str
    prompt: str
    references: list[str]
    replies: list[tuple[str, str, str]]


def examples(files: ComparisonFiles) -> Examples:
    """Every example that all rows answered; beyond 2,000, evenly spaced ones in the order of their ids."""
    record = files.record
    rows = [row for row in _in_order(record) if _answers(row, files)]
    seeds = {row.label: [_answers_of(row, cell.predictions) for cell in files.cells[row.label]] for row in rows}
    shared = sorted(set.intersection(*(set(one) for each in seeds.values() for one in each))) if rows else []
    keys = list(dict.fromkeys(key for each in seeds.values() for one in each for a in one.values() for key in a.scores))
    keys.sort(key=lambda key: key != record.score)
    found = [_shared(id_, rows, seeds, keys) for id_ in spread(shared, _MOST_EXAMPLES)]
    return Examples(rows, keys, found, len(shared))


@dataclass(frozen=True)
class _Answer:
    """What one row said to one example."""

    prompt: str
    references: list[str]
    text: str
    finished: bool
    scores: dict[str, float]


def _in_order(record: ComparisonRecord) -> list[RowRecord]:
    placed = stand(record, record.score).placed
    return [*placed, *(row for row in record.rows if row.status == "done" and row not in placed)]


def _answers(row: RowRecord, files: ComparisonFiles) -> bool:
    cells = files.cells.get(row.label, [])
    return bool(cells) and all(_answers_of(row, cell.predictions) for cell in cells)


def _answers_of(row: RowRecord, predictions: Sequence[Prediction]) -> dict[str, _Answer]:
    """By example; a run's predictions also hold what the untouched base said, with and without examples before it."""
    if row.kind == "few_shot":
        shots = [line for line in predictions if line.few_shot_prediction is not None]
        return {p.id: _Answer(p.prompt, p.references, p.few_shot_prediction or "", True, {}) for p in shots}
    if row.kind == "base":
        return {
            p.id: _Answer(p.prompt, p.references, p.base_prediction, p.base_finished, p.base_scores)
            for p in predictions
        }
    return {p.id: _Answer(p.prompt, p.references, p.prediction, p.finished, p.scores) for p in predictions}


def _shared(
    id_: str, rows: Sequence[RowRecord], seeds: dict[str, list[dict[str, _Answer]]], keys: Sequence[str]
) -> Shared:
    first = [seeds[row.label][0][id_] for row in rows]
    scores: dict[str, list[float | None]] = {}
    for key in keys:
        each = [[one[id_].scores[key] for one in seeds[row.label] if key in one[id_].scores] for row in rows]
        scores[key] = [fmean(values) if values else None for values in each]
    return Shared(
        id=id_,
        prompt=first[0].prompt,
        references=first[0].references,
        replies=[answer.text for answer in first],
        finished=[answer.finished for answer in first],
        scores=scores,
    )


def as_data(record: ComparisonRecord, found: Examples) -> dict[str, object]:
    """What the page's script reads. Every text is visible already, and no longer than the page can hold."""
    names = slugs(record)
    return {
        "language": language_tag(record.language),
        "rows": [{"label": one_line(row.label), "slug": names[row.label]} for row in found.rows],
        "scores": [
            {"name": score_name(key), "higher": record.score_info[key].higher_is_better is not False
             if key in record.score_info else True}
            for key in found.keys
        ],
        "examples": [
            {
                "id": one_line(example.id),
                "prompt": _clipped(example.prompt, _LONGEST_PROMPT),
                "references": [_clipped(reference, _LONGEST_REPLY) for reference in example.references],
                "replies": [_clipped(reply, _LONGEST_REPLY) for reply in example.replies],
                "finished": [int(done) for done in example.finished],
                "scores": [
                    [None if value is None else round(value, 6) for value in example.scores[key]]
                    for key in found.keys
                ],
            }
            for example in found.shown
        ],
    }  # fmt: skip


def articles(found: Examples) -> list[Article]:
    """The examples on which the rows' scores differ most, for readers without a script."""
    key = found.keys[0] if found.keys else ""

    def difference(example: Shared) -> float:
        known = [value for value in example.scores.get(key, []) if value is not None]
        return max(known) - min(known) if known else 0.0

    chosen = sorted(found.shown, key=lambda example: (-difference(example), example.id))[:_SHOWN]
    return [_article(found, key, example) for example in chosen]


def _article(found: Examples, key: str, example: Shared) -> Article:
    scores = example.scores.get(key) or [None] * len(found.rows)
    replies = [
        (one_line(row.label), _clipped(reply, _LONGEST_REPLY), "" if value is None else plain(value))
        for row, reply, value in zip(found.rows, example.replies, scores, strict=True)
    ]
    prompt, references = _clipped(example.prompt, _LONGEST_PROMPT), example.references
    return Article(one_line(example.id), prompt, [_clipped(one, _LONGEST_REPLY) for one in references], replies)


def _clipped(text: str, limit: int) -> str:
    kept, cut = clip(visible(text), limit)
    return f"{kept} […{cut:,} more characters]" if cut else kept
