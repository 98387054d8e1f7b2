"""Bits per byte of the reference answers: likelihood spread over text, so models with any tokenizer are comparable.

bits per byte = sum of nll / (ln 2 * sum of UTF-8 bytes)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from inlay.eval.metrics import Additive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inlay.eval import Record


class BitsPerByte(Additive):
    """Over all answers at once, the end token's bits included; an answer without text counts as one byte."""

    title = "bits per byte"
    scores = ("bits_per_byte",)
    needs = "likelihood"
    fields = ("nll_nats", "reference_bytes")
    unit = "bits per byte"
    higher_is_better = False
    ratio = True

    def signature(self, references: int | None = 1) -> str:
        return "tokens:answer+end|refs:first|bytes:utf-8|agg:byte-sum"

    def statistics(self, record: Record) -> NDArray[np.float64]:
        """Negative log-likelihood in bits, and bytes: shape (2,)."""
        import numpy as np

        return np.array([record.nll_nats / math.log(2), max(record.reference_bytes, 1)], dtype=np.float64)

    def value(self, sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        return sums[..., :1] / sums[..., 1:]
