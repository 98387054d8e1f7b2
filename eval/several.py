"""Several replies at once, each decoded in its own way and told token by token to whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from inlay.eval import Decoding
from inlay.eval.continuation import follow, needs_equal_lengths
from inlay.eval.scoring import Scorable, observing

if TYPE_CHECKING:
    import torch


def can_write(scorable: Scorable, decoding: Decoding) -> bool:
    """Whether replies of this model that are decoded so can be written beside others, of whatever length."""
    plain = decoding.num_beams == 1 and decoding.repetition_penalty == 1.0
    return plain and scorable.kind == "causal" and not needs_equal_lengths(scorable)


def write_several(
    scorable: Scorable,
    prompts: Sequence[Sequence[int]],
    decodings: Sequence[Decoding],
    *,
    stop_ids: Sequence[int],
    heard: Callable[[int, int], bool],
) -> None:
    """Continues each prompt as its own decoding says. In fp32 a reply is what it would be alone.

    Args:
        prompts: token ids.
        decodings: for each prompt; `can_write` holds of all. What is drawn depends on the seed of the row alone.
        stop_ids: a row ends with the first of these.
        heard: hears the row and each new token, the stop token included, and says whether the row is to go on.
    """
    import torch

    draws = {row: torch.Generator().manual_seed(d.seed) for row, d in enumerate(decodings) if d.do_sample}
    written = [0] * len(prompts)

    def choose(rows: list[int], logits: torch.Tensor) -> list[int]:
        likeliest = logits.float().argmax(-1).tolist()
        return [
            _drawn(logits[i], decodings[row], draws[row]) if row in draws else likeliest[i]
            for i, row in enumerate(rows)
        ]

    def goes_on(row: int, token: int) -> bool:
        written[row] += 1
        wanted = heard(row, token)
        return wanted and token not in stop_ids and written[row] < decodings[row].max_new_tokens

    with observing(scorable):
        follow(scorable, prompts, choose, goes_on)


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
