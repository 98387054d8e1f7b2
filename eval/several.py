"""Several replies at once, each decoded in its own way and told token by token to whoever asked for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inlay.eval import Decoding
from inlay.eval.continuation import follow, is_windowed, needs_equal_lengths
from inlay.eval.scoring import Scorable, observing

if TYPE_CHECKING:
    import torch


def can_write(scorable: Scorable, decoding: Decoding) -> bool:
    """Whether replies of this model that are decoded so can be written beside others, of whatever length."""
    plain = decoding.num_beams == 1 and decoding.repetition_penalty == 1.0
    return plain and scorable.kind == "causal" and not needs_equal_lengths(scorable)


@dataclass(frozen=True)
class Writing:
    """A reply to be written.

    Attributes:
        prompt: token ids.
        decoding: `can_write` holds of it. What is drawn depends on its seed alone.
        heard: hears each new token, the stop token included, and says whether more are wanted.
        ended: called behind the last token.
    """

    prompt: Sequence[int]
    decoding: Decoding
    heard: Callable[[int], bool]
    ended: Callable[[], None]


def write_several(
    scorable: Scorable,
    writings: Sequence[Writing],
    *,
    stop_ids: Sequence[int],
    joining: Callable[[int], Sequence[Writing]],
) -> None:
    """Writes replies, each as its own decoding says. In fp32 a reply is what it would be alone.

    Args:
        stop_ids: a reply ends with the first of these.
        joining: called between two tokens with the number of replies in hand; others that are to be written with them.
    """
    in_hand: dict[int, _InHand] = {}
    numbers = itertools.count()

    def take(new: Sequence[Writing]) -> list[Sequence[int]]:
        in_hand.update((next(numbers), _InHand(writing)) for writing in new)
        return [writing.prompt for writing in new]

    def choose(rows: list[int], logits: torch.Tensor) -> list[int]:
        likeliest = logits.float().argmax(-1).tolist()
        return [in_hand[row].chosen(logits[i], likeliest[i]) for i, row in enumerate(rows)]

    def goes_on(row: int, token: int) -> bool:
        more = in_hand[row].hear(token, stop_ids)
        if not more:
            in_hand.pop(row).writing.ended()
        return more

    def joined(left: int) -> list[Sequence[int]]:
        return [] if is_windowed(scorable) else take(joining(left))

    with observing(scorable):
        follow(scorable, take(writings), choose, goes_on, joined)


class _InHand:
    """A reply that is being written."""

    def __init__(self, writing: Writing) -> None:
        import torch

        self.writing = writing
        self._tokens = 0
        self._draws = torch.Generator().manual_seed(writing.decoding.seed)

    def chosen(self, logits: torch.Tensor, likeliest: int) -> int:
        decoding = self.writing.decoding
        return _drawn(logits, decoding, self._draws) if decoding.do_sample else likeliest

    def hear(self, token: int, stop_ids: Sequence[int]) -> bool:
        """Whether another token is to follow this one."""
        self._tokens += 1
        wanted = self.writing.heard(token)
        return wanted and token not in stop_ids and self._tokens < self.writing.decoding.max_new_tokens


def _drawn(logits: torch.Tensor, decoding: Decoding, generator: torch.Generator) -> int:
    """A token, from logits (vocabulary,), narrowed as transformers narrows them. Drawn on the CPU, on every device."""
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    narrowed = TemperatureLogitsWarper(decoding.temperature)(None, logits.float().cpu()[None])
    if decoding.top_k:
        narrowed = TopKLogitsWarper(decoding.top_k)(None, narrowed)
    if decoding.top_p < 1:
        narrowed = TopPLogitsWarper(decoding.top_p)(None, narrowed)
    return int(torch.multinomial(narrowed.softmax(-1), 1, generator=generator))
