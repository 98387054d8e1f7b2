"""Empty outputs: the share of examples for which nothing but white space was generated.

BLEU and ROUGE count an empty output as no overlap and go on; this number says how often that happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inlay.eval.metrics import Mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inlay.eval import Record


class Empty(Mean):
    """In % of the examples."""

    title = "empty outputs"
    scores = ("empty",)
    needs = "text"
    fields = ("prediction",)
    unit = "%"
    higher_is_better = False
    proportion = True

    def signature(self, references: int | None = 1) -> str:
        return "empty:white space only|agg:mean"

    def statistics(self, record: Record) -> NDArray[np.float64]:
        """1 where the output is empty, else 0: shape (1,)."""
        import numpy as np

        return np.array([not record.prediction.strip()], dtype=np.float64)
