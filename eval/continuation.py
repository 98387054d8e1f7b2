"""A causal model that has read prompts and goes on from its key/value cache: the path of generation and of choice."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from inlay.eval.scoring import Scorable, logits_of, pad

if TYPE_CHECKING:
    from torch import Tensor, nn

# What configurations call the reach of attention that looks back only so far.
WINDOWS = ("sliding_window", "window_size", "attention_chunk_size")


class Continuation:
    """Prompts that a causal model has read, one row each.

    Prompts are padded on the left: what follows stands right behind them, also for windowed attention, which counts
    slots. Behind something that an adapter prepends there may be no pads, so there all prompts are read to the length
    of the shortest, and the rest, padded on the left, from the cache.

    Attributes:
        last: logits (rows, vocabulary) that predict the first new token of each row.
    """

    def __init__(self, scorable: Scorable, prompts: Sequence[Sequence[int]]) -> None:
        import torch

        self._scorable, self._cache = scorable, None
        self._positioned = takes_positions(scorable)
        self._mask = torch.zeros((len(prompts), 0), dtype=torch.long, device=scorable.device)
        common = min(map(len, prompts)) if scorable.prepends != "nothing" else 0
        if common:
            ids, _ = pad([prompt[:common] for prompt in prompts], scorable.pad_id, scorable.device)
            with logits_of(scorable.model, lambda hidden: hidden[:, -1:]):
                output = scorable.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
            self.last, self._cache = output.logits[:, -1], output.past_key_values
            self._mask = self._mask.new_ones(len(prompts), self._cache.get_seq_length())
        longer = [len(prompt) > common for prompt in prompts]
        if any(longer):
            ids, mask = pad([prompt[common:] for prompt in prompts], scorable.pad_id, scorable.device, left=True)
            with logits_of(scorable.model, lambda hidden: hidden[:, -1:]):
                last = self._read(scorable.inner if common else scorable.model, ids, mask)[:, -1]
            own = torch.tensor(longer, device=last.device)[:, None]
            self.last = torch.where(own, last, self.last) if common else last

    def select(self, rows: Sequence[int]) -> None:
        """Goes on with these rows, in this order; a row may be left out, or stand there several times."""
        import torch

        self._cache.batch_select_indices(torch.tensor(rows, device=self._mask.device))
        self._mask = self._mask[rows]

    def join(self, other: Continuation) -> None:
        """Takes the rows of `other` in, behind its own; what has been read of fewer tokens is padded on the left."""
        import torch

        unused = int(self._mask.any(0).long().argmax())  # slots before any token of the rows that are left
        width = max(self._mask.shape[1] - unused, other._mask.shape[1])

        def both(mine: Tensor, theirs: Tensor, axis: int) -> Tensor:
            kept = mine.narrow(axis, unused, mine.shape[axis] - unused)
            return torch.cat([_widened(kept, width, axis), _widened(theirs, width, axis)])

        for mine, theirs in zip(self._cache.layers, other._cache.layers, strict=True):
            mine.keys, mine.values = both(mine.keys, theirs.keys, 2), both(mine.values, theirs.values, 2)
        self._mask = both(self._mask, other._mask, 1)

    def extend(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Appends tokens to each row; shorter rows are padded on the right, and cannot be extended again.

        Returns:
            Logits (rows, tokens of the longest row, vocabulary): position t's predict what follows token t.
        """
        return self._read(self._scorable.inner, *pad(tokens, self._scorable.pad_id, self._scorable.device))

    def look_ahead(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """As `extend`, but these tokens are then forgotten, and others can be appended."""
        from transformers.cache_utils import DynamicLayer

        mask, cache = self._mask, self._cache
        whole = all(type(layer) is DynamicLayer for layer in cache.layers)
        if not whole:  # what has left a window would be missing
            self._cache = copy.deepcopy(cache)
        logits = self.extend(tokens)
        if whole:
            cache.crop(mask.shape[1] - self._mask.shape[1])
        self._mask, self._cache = mask, cache
        return logits

    def _read(self, model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
        import torch

        positions = self._mask.sum(-1, keepdim=True) + (mask.cumsum(-1) - 1).clamp(min=0)
        self._mask = torch.cat([self._mask, mask], 1)
        output = model(
            input_ids=ids,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **({"position_ids": positions} if self._positioned else {}),
        )
        self._cache = output.past_key_values
        return output.logits


def follow(
    scorable: Scorable,
    prompts: Sequence[Sequence[int]],
    choose: Callable[[list[int], Tensor], list[int]],
    goes_on: Callable[[int, int], bool],
    joining: Callable[[int], Sequence[Sequence[int]]] = lambda _: (),
    prompted: Callable[[Continuation], None] = lambda _: None,
) -> None:
    """Continues each prompt, a token for each row in turn. A row that has ended leaves the batch, so the others need
    not carry it.

    Args:
        choose: from the rows that are left and logits (rows left, vocabulary) to the next token of each.
        goes_on: hears the row and its token, and says whether the row goes on behind it.
        joining: called between two tokens with the number of rows that are left; prompts that join them, which take the
            next row numbers. Not where attention is windowed, which counts slots.
        prompted: called with the prompts, as they have been read, before anything follows them.
    """
    import torch

    read = Continuation(scorable, prompts)
    prompted(read)
    rows, logits, begun = list(range(len(prompts))), read.last, len(prompts)
    while rows:
        chosen = choose(rows, logits)
        told = [goes_on(row, token) for row, token in zip(rows, chosen, strict=True)]
        going = [i for i, more in enumerate(told) if more]
        if 0 < len(going) < len(rows):
            read.select(going)
        rows = [rows[i] for i in going]
        if rows:
            logits = read.extend([[chosen[i]] for i in going])[:, -1]
        if prompts := joining(len(rows)):
            new = Continuation(scorable, prompts)
            if rows:
                read.join(new)
                logits = torch.cat([logits, new.last])
            else:
                read, logits = new, new.last
            rows += range(begun, begun + len(prompts))
            begun += len(prompts)


def takes_positions(scorable: Scorable) -> bool:
    """Whether the model can be told where each token stands; without that, no row may be padded."""
    return "position_ids" in inspect.signature(scorable.inner.forward).parameters


def needs_equal_lengths(scorable: Scorable) -> bool:
    """Whether prompts of different lengths cannot be read in one batch with the result that each has alone."""
    return not takes_positions(scorable) or (scorable.prepends != "nothing" and is_windowed(scorable))


def is_windowed(scorable: Scorable) -> bool:
    """Whether attention looks back only so far, and counts slots to know how far."""
    config = scorable.inner.config.get_text_config()
    return any(getattr(config, name, None) for name in WINDOWS)


def _widened(tensor: Tensor, width: int, axis: int) -> Tensor:
    """The tensor with zeros before it along the axis, up to this width."""
    import torch

    shape = list(tensor.shape)
    shape[axis] = width - shape[axis]
    return torch.cat([tensor.new_zeros(shape), tensor], axis)
