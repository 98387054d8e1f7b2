"""Speed on a CPU: the dequantized weights of a 4-bit base, kept beside the quantized ones where memory is plentiful.

bitsandbytes dequantizes a weight each time that it is used, which for a few tokens takes longer than the product with
them. What is kept is what it would dequantize, so the product is the same to the bit, and so is its gradient.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from inlay.tuner import base as base_models
from inlay.tuner.base import Base
from inlay.tuner.meter import free_memory
from inlay.tuner.quantization import dtype_of, is_quantized

if TYPE_CHECKING:
    from torch import Tensor, nn

SHARE = 0.1  # of the free memory: so little that nothing runs out of memory for it


def with_plain_weights(base: Base) -> Base:
    """The base, whose 4-bit layers compute with dequantized weights from now on, if that is worth its memory."""
    layers = [layer for layer in base.model.modules() if is_quantized(layer)]
    dtype = dtype_of(base.compute_dtype)
    size = sum(layer.in_features * layer.out_features for layer in layers) * dtype.itemsize
    if base.device != "cpu" or base.quantization.bits != 4 or not worth(size):
        return base
    for layer in layers:
        layer.forward = partial(_forward, layer, base_models.dequantize(layer, dtype))
    return replace(base, plain_bytes=size)


def worth(size: int) -> bool:
    """Whether the free memory of this machine is so large that so many bytes of it do not matter."""
    return size <= SHARE * (free_memory() or 0)


def _forward(layer: nn.Module, weight: Tensor, inputs: Tensor) -> Tensor:
    """As the layer's own, with this weight."""
    from torch.nn.functional import linear

    if layer.compute_dtype != weight.dtype:  # the model was made to compute in another one since
        return type(layer).forward(layer, inputs)
    bias = None if layer.bias is None else layer.bias.to(weight.dtype)
    return linear(inputs.to(weight.dtype), weight, bias).to(inputs.dtype)
