"""Accuracy: the share of examples whose chosen label is the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inlay.eval.metrics import Mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inlay.eval import Record


class Accuracy(Mean):
    """In % of the examples."""

    title = "accuracy"
    scores = ("accuracy",)
    needs = "choice"
    fields = ("chosen", "gold")
    unit = "%"
    higher_is_better = True
    proportion = True

    def signature(self, references: int | None = 1) -> str:
        return "choice:sum-of-label-nll|agg:mean"

    def statistics(self, record: Record) -> NDArray[np.float64]:
        """1 where the choice is right, else 0: shape (1,)."""
        import numpy as np

        return np.array([record.chosen == record.gold], dtype=np.float64)
