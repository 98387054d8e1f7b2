"""Several replies at once, each decoded in its own way and told token by token to whoever asked for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inlay.eval import Decoding, MeasurementError
from inlay.eval.continuation import follow, is_windowed, needs_equal_lengths
from inlay.eval.scoring import Scorable, observing

if TYPE_CHECKING:
    import torch

LIKELY = 1024  # tokens that are looked at first for `top_p`: sorting a large vocabulary takes longer than all the rest


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
        written: its first tokens, where it was begun before: it goes on behind them as if it had not been stopped.
    """

    prompt: Sequence[int]
    decoding: Decoding
    heard: Callable[[int], bool]
    ended: Callable[[], None]
    written: Sequence[int] = ()


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
        return [[*writing.prompt, *writing.written] for writing in new]

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
        self._tokens = len(writing.written)
        self._draws = torch.Generator().manual_seed(writing.decoding.seed)
        for _ in writing.written if writing.decoding.draws else ():
            _number(self._draws)

    def chosen(self, logits: torch.Tensor, likeliest: int) -> int:
        decoding = self.writing.decoding
        return _drawn(logits, decoding, self._draws) if decoding.draws else likeliest

    def hear(self, token: int, stop_ids: Sequence[int]) -> bool:
        """Whether another token is to follow this one."""
        self._tokens += 1
        wanted = self.writing.heard(token)
        return wanted and token not in stop_ids and self._tokens < self.writing.decoding.max_new_tokens


def _drawn(logits: torch.Tensor, decoding: Decoding, generator: torch.Generator) -> int:
    """A token, from logits (vocabulary,). They are narrowed on their device; what is left is drawn from on the CPU, in
    the order of the vocabulary and with one number of the generator, so that a seed draws the same on every device.

    Raises:
        MeasurementError: the logits are not finite.
    """
    import torch

    scores = logits.float() / decoding.temperature
    left = None
    if decoding.top_k or decoding.top_p < 1:
        left = _likeliest(scores, decoding).sort().values
        scores = scores[left]
    mass = scores.cpu().double().softmax(-1).cumsum(-1)
    if mass[-1].isnan():
        raise MeasurementError("the model's logits are not finite, so nothing can be drawn from them")
    place = int(torch.searchsorted(mass, _number(generator) * mass[-1], right=True))
    return place if left is None else int(left[place])


def _number(generator: torch.Generator) -> torch.Tensor:
    """The next number below 1."""
    import torch

    return torch.rand((), generator=generator, dtype=torch.float64)


def _likeliest(scores: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """The tokens that a draw is narrowed to: the `top_k` likeliest, and of these the fewest that together have `top_p`
    of the mass."""
    most = min(decoding.top_k or len(scores), len(scores))
    if decoding.top_p == 1:
        return scores.topk(most).indices
    whole = (scores.topk(most).values if most < len(scores) else scores).logsumexp(-1)
    count = min(most, LIKELY)
    while True:
        likeliest = scores.topk(count)
        mass = (likeliest.values - whole).exp()
        kept = int((mass.cumsum(-1) - mass < decoding.top_p).sum())
        if kept < count or count == most:
            return likeliest.indices[:kept]
        count = most
