"""The loss of a batch, padded or flattened, and whether it is the same either way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inlay.adapters import Adapted
from inlay.eval.scoring import logits_of
from inlay.tuner.training.flat import BOUNDS, attending, flattened
from inlay.tuner.training.rows import IGNORED

ROUNDING = 1e-4  # of the loss; what one row sees of another moves it by more


def sum_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy summed over the label tokens of a batch, in nats.

    Args:
        batch: input_ids, attention_mask (rows, tokens), labels (rows, positions; position t's label is what position t
            predicts), and decoder_input_ids for a sequence-to-sequence model; or one that is `flattened`.
    """
    labels = batch["labels"]
    inputs: dict[str, Any] = {key: value for key, value in batch.items() if key not in ("labels", "rows")}
    if BOUNDS in batch:
        inputs["use_cache"] = False
    wanted = labels != IGNORED
    # Tokens that an adapter prepends stand before the text.
    with logits_of(model, lambda hidden: hidden[:, -labels.shape[1] :][wanted][None]):
        logits = model(**inputs).logits[0]
    return nn.functional.cross_entropy(logits.float(), labels[wanted], reduction="sum")


def computes_alike(adapted: Adapted, batch: Mapping[str, Tensor]) -> bool:
    """Whether the loss of a padded batch is the same, up to rounding, when it is flattened."""
    model, training = adapted.model, adapted.model.training
    try:
        with torch.no_grad():
            padded = sum_loss(model.eval(), batch)
            with attending(adapted.inner):
                apart = sum_loss(model, flattened(batch))
    except (KeyError, RuntimeError, TypeError, ValueError):  # what it is for models that do not take it
        return False
    finally:
        model.train(training)
    return bool((apart - padded).abs() <= ROUNDING * padded.abs())
