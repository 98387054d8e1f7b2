"""The size of an adapter for a wanted number of trainable weights."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from inlay.adapters import Facts, Method, Options, Training

EXHAUSTIVE = 512
"""Up to so many sizes, all are tried; among more, those that fit are the smallest and a larger one trains more."""


def nearest(method: Method, facts: Facts, weights: int) -> Options:
    """The options of `method` with its size option at the value that trains the number of weights nearest to `weights`;
    of two equally near, the smaller value.

    Raises:
        LookupError: none of the method's sizes fits this base.
    """

    def fits(size: int) -> bool:
        return method.at_size(size).refusal(facts, Training(gradient_checkpointing=False)) is None

    def trainable(size: int) -> int:
        return method.at_size(size).trainable(facts)

    sizes: Sequence[int] = method.sizes
    if len(sizes) > EXHAUSTIVE:
        sizes = sizes[: bisect_left(sizes, True, key=lambda size: not fits(size))]
        place = bisect_left(sizes, weights, key=trainable)
        sizes = sizes[max(0, place - 1) : place + 1]
    else:
        sizes = [size for size in sizes if fits(size)]
    if not sizes:
        raise LookupError(f"no {method.size} of {method.title} fits this {facts.model_type} base")
    return method.at_size(min(sizes, key=lambda size: abs(trainable(size) - weights))).options
