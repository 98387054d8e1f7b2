"""Predictions side by side: which rows are shown, and which of their words differ from the reference."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from inlay.tuner.records import Prediction
from inlay.tuner.report.figures import plain
from inlay.tuner.report.scores import score_name
from inlay.tuner.report.text import clip, visible, words

ROWS_SHOWN = 20
_LONGEST_PROMPT = 8_000  # characters
_LONGEST_REPLY = 2_000
_LEAD = 280  # characters of a prompt that stand open; the rest unfolds

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Piece:
    """A run of text; `differs`: it is not in the reference at that place."""

    text: str
    differs: bool


@dataclass(frozen=True)
class Reply:
    """One model's answer. `cut` counts characters left off; `scores` are `(name, figure)`."""

    who: str
    pieces: list[Piece]
    cut: int
    finished: bool
    scores: list[tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """One example as the page shows it. `lead` is the prompt's beginning where the whole is folded away, else empty."""

    anchor: str
    id: str
    lead: str
    prompt: str
    prompt_cut: int
    references: list[str]
    replies: list[Reply]


def spread(items: Sequence[_Item], limit: int) -> list[_Item]:
    """At most `limit` items, evenly spaced from the first on."""
    taken = min(limit, len(items))
    return [items[index * len(items) // taken] for index in range(taken)]


def rows(predictions: Sequence[Prediction], *, trained: bool) -> list[Row]:
    """The rows to show: evenly spaced in the order of their ids, so that nobody picks them by their answers."""
    return [_row(prediction, trained) for prediction in spread(sorted(predictions, key=lambda p: p.id), ROWS_SHOWN)]


def _row(row: Prediction, trained: bool) -> Row:
    prompt, prompt_cut = clip(visible(row.prompt), _LONGEST_PROMPT)
    replies = [_reply("base", row.base_prediction, row.base_finished, row.base_scores, row.references)]
    if trained:
        replies.append(_reply("tuned", row.prediction, row.finished, row.scores, row.references))
    return Row(
        anchor="row-" + hashlib.sha256(row.id.encode("utf-8", "replace")).hexdigest()[:12],
        id=row.id,
        lead=prompt[:_LEAD].rsplit(maxsplit=1)[0] if len(prompt) > _LEAD * 3 // 2 else "",
        prompt=prompt,
        prompt_cut=prompt_cut,
        references=[clip(visible(reference), _LONGEST_REPLY)[0] for reference in row.references],
        replies=replies,
    )


def _reply(who: str, text: str, finished: bool, scores: dict[str, float], references: list[str]) -> Reply:
    shown, cut = clip(visible(text), _LONGEST_REPLY)
    closest = min((_compare(reference, shown) for reference in references or [shown]), key=_difference)
    return Reply(who, closest, cut, finished, [(score_name(key), plain(value)) for key, value in scores.items()])


def _compare(reference: str, reply: str) -> list[Piece]:
    """`reply` in runs of words that the reference has at that place, and runs that it has not; case counts."""
    expected, found = words(clip(visible(reference), _LONGEST_REPLY)[0]), words(reply)
    matcher = difflib.SequenceMatcher(None, _bare(expected), _bare(found), autojunk=False)
    pieces = []
    for kind, _, _, start, end in matcher.get_opcodes():
        text = "".join(found[start:end])
        space = len(text) - len(text.lstrip()) if kind != "equal" else 0
        pieces += [Piece(text[:space], False), Piece(text[space:], kind != "equal")]
    return [piece for piece in pieces if piece.text]


def _bare(pieces: list[str]) -> list[str]:
    return [piece.strip() for piece in pieces]


def _difference(pieces: list[Piece]) -> int:
    return sum(len(piece.text) for piece in pieces if piece.differs)
