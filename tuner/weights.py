"""The bytes of a loaded model: which they are, and how many."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names and bytes of all parameters and buffers, quantization state included."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        for part in (tensor, *_scales(tensor)):
            digest.update(name.encode())
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def bytes_in_memory(model: nn.Module) -> int:
    """Parameters, buffers and quantization state, shared tensors counted once."""
    seen: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        for part in (tensor, *_scales(tensor)):
            seen[part.data_ptr()] = part.numel() * part.element_size()
    return sum(seen.values())


def _scales(weight: torch.Tensor) -> list[torch.Tensor]:
    """What bitsandbytes keeps beside a quantized weight; nothing for any other tensor."""
    state = getattr(weight, "quant_state", None)
    parts = [getattr(weight, "SCB", None)]
    if state is not None:
        parts += [state.absmax, state.code]
        parts += [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    return [part for part in parts if part is not None]
