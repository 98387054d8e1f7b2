"""The update of one layer as two matrices of LoRA, the work of PEFT's `convert_to_lora`."""

from __future__ import annotations

import torch
from peft.tuners.lora.conversion import convert_to_lora
from peft.tuners.miss.layer import MissLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor


def factors(layer: BaseTunerLayer) -> tuple[Tensor, Tensor]:
    """A and B of a layer, see `Adapted.factors`.

    PEFT is asked for the whole of the update, so that whoever cuts it knows what is lost.
    """
    base = layer.get_base_layer()
    _, tensors = convert_to_lora(layer, rank=min(base.in_features, base.out_features))
    a, b = (tensors[f".lora_{part}.weight"].float() for part in "AB")
    # Of MiSS, PEFT returns the factors that it has, of whatever rank and in no order.
    return ordered(a, b) if isinstance(layer, MissLinear) else (a, b)


def ordered(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The same product B A by its singular values, the largest first, which B's columns have as their norms.

    Args:
        a, b: rank x in, out x rank.
    """
    left, upper = torch.linalg.qr(b)
    right, lower = torch.linalg.qr(a.T)
    outer, values, inner = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    return inner @ right.T, left @ outer * values
