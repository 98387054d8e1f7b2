"""What every runner needs: the seams to a renderer and a model, and a guard that a model is only observed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from inlay.eval import MeasurementError, Turn

if TYPE_CHECKING:
    import torch
    from torch import nn


class Rendering(Protocol):
    """Turns to token ids and back; whoever trained the model brings the one it was trained with."""

    stop_ids: tuple[int, ...]

    def prompt_ids(self, turns: Sequence[Turn]) -> tuple[int, ...]: ...

    def prompt_text(self, turns: Sequence[Turn]) -> str: ...

    def answer_ids(self, turns: Sequence[Turn], answer: str) -> tuple[int, ...]: ...

    def windows(self, text: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]: ...

    def unscored(self, text: str) -> str: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Scorable:
    """A model to score.

    Attributes:
        model: called with token ids.
        inner: continues from a key/value cache that `model` filled; `model` itself where nothing is prepended.
        kind: decoder only, or encoder and decoder.
        prepends: what an adapter puts before the text: `nothing`, `tokens` or `keys`; decides how batches are padded.
        pad_id: fills up batches; never read, never scored.
    """

    model: nn.Module
    inner: nn.Module
    kind: Literal["causal", "seq2seq"]
    prepends: Literal["nothing", "tokens", "keys"]
    pad_id: int

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return next(self.model.parameters()).device

    @property
    def start_id(self) -> int:
        """The token that a sequence-to-sequence decoder starts from."""
        return int(self.inner.config.decoder_start_token_id)


@contextlib.contextmanager
def observing(scorable: Scorable) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in the mode it was in.

    Raises:
        MeasurementError: a module is still in training mode, so dropout would make the scores random.
    """
    import torch

    modes = {module: module.training for module in scorable.model.modules()}
    try:
        scorable.model.eval()
        training = [type(module).__name__ for module in scorable.model.modules() if module.training]
        if training:
            raise MeasurementError(f"{training[0]} stays in training mode, so scores would be random")
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def logits_of(model: nn.Module, choose: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Inside, the output head computes logits of chosen positions alone: for a large vocabulary they are the largest
    tensors there are.

    Args:
        choose: from the last hidden states (rows, positions, width), those to compute logits of, with as many axes.
    """
    head = model.get_output_embeddings()
    # Of what is not contiguous a weight that trains makes another product, in another order, even without a gradient.
    handle = head.register_forward_pre_hook(lambda _, inputs: (choose(inputs[0]).contiguous(), *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()


def pad(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device, *, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both (rows, longest row)."""
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, where] = torch.tensor(row, dtype=torch.long)
        mask[i, where] = 1
    return ids.to(device), mask.to(device)


def batches(
    lengths: Sequence[int], size: int, *, equal: bool = False, tokens: int | None = None
) -> list[list[int]]:
    """Indices in batches of at most `size`, longest first, so that a batch is padded little.

    Args:
        equal: a batch holds rows of one length only, so that it is not padded at all.
        tokens: what a batch of several rows holds at most, padding included.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    made: list[list[int]] = []
    for i in order:
        longest = lengths[made[-1][0]] if made else 0
        most = size if tokens is None else min(size, tokens // max(longest, 1))
        if made and len(made[-1]) < most and (not equal or longest == lengths[i]):
            made[-1].append(i)
        else:
            made.append([i])
    return made
