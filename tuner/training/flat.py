"""Rows one behind the other, where a batch would be padded: nothing is computed that is not needed.

Each row sees itself alone, since attention is called for each apart. It is done on a CPU only; on a GPU, where each row
would take kernels of its own, it was not tried. Whatever an architecture and an adapter make of it,
`loss.computes_alike` says whether the loss is that of the padded batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from inlay.eval.continuation import is_windowed, takes_positions
from inlay.eval.scoring import Scorable
from inlay.tuner.recipe import Train

BOUNDS = "cu_seq_lens_q"  # where each row begins, and the end: what transformers hands on to attention by this name
_NAME = "inlay_rows"


def possible(scorable: Scorable, options: Train) -> bool:
    """Whether something would be saved by it, and no part of the model or the training is known to need padded rows."""
    noisy = options.neftune_noise_alpha is not None  # its size depends on the length of a padded row
    return (
        options.micro_batch_size > 1
        and not noisy
        and scorable.device.type == "cpu"
        and scorable.kind == "causal"
        and scorable.prepends == "nothing"
        and scorable.inner.get_output_embeddings().weight.dtype == torch.float32
        and scorable.inner.config._attn_implementation == "sdpa"
        and getattr(scorable.inner, "_supports_attention_backend", False)
        and takes_positions(scorable)
        and not is_windowed(scorable)
    )


def flattened(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A padded batch of a causal model as one row: input_ids, labels and position_ids (1, tokens), and the bounds of
    the rows in it."""
    real = batch["attention_mask"].bool()
    lengths = real.sum(1)
    return {
        "rows": batch["rows"],
        "input_ids": batch["input_ids"][real][None],
        "labels": batch["labels"][real][None],
        "position_ids": (real.cumsum(1) - 1)[real][None],
        BOUNDS: nn.functional.pad(lengths.cumsum(0), (1, 0)),
    }


@contextlib.contextmanager
def attending(model: nn.Module) -> Iterator[None]:
    """Inside, attention keeps the rows of a flattened batch apart; it takes no other."""
    config = model.config
    before, config._attn_implementation = config._attn_implementation, _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **options: Any
) -> tuple[Tensor, None]:
    """Attention of each row apart; shapes as transformers' own: (1, heads, tokens, width) to (1, tokens, heads, width).

    Raises:
        KeyError: the model hands the bounds of the rows not on.
    """
    lengths = options.pop(BOUNDS).diff().tolist()
    rows = zip(*(tensor.split(lengths, 2) for tensor in (query, key, value)), strict=True)
    return torch.cat([sdpa_attention_forward(module, *row, None, **options)[0] for row in rows], 1), None


AttentionInterface.register(_NAME, _attention)
