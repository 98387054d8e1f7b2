"""Perplexity of the reference answers: exp(sum of nll / sum of tokens), over all tokens of all examples at once.

A mean of batch means would depend on the batch size; sums do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inlay.eval.metrics import Additive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inlay.eval import Record


class Perplexity(Additive):
    """Per answer token, end token included; comparable only between models that share a tokenizer."""

    title = "perplexity"
    scores = ("perplexity",)
    needs = "likelihood"
    fields = ("nll_nats", "tokens")
    unit = "per token"
    higher_is_better = False
    ratio = True

    def signature(self, references: int | None = 1) -> str:
        return "tokens:answer+end|refs:first|agg:token-sum"

    def statistics(self, record: Record) -> NDArray[np.float64]:
        """Negative log-likelihood in nats, and tokens: shape (2,)."""
        import numpy as np

        return np.array([record.nll_nats, record.tokens], dtype=np.float64)

    def value(self, sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        import numpy as np

        with np.errstate(over="ignore"):  # infinity is reported as a score that is not finite
            return np.exp(sums[..., :1] / sums[..., 1:])
