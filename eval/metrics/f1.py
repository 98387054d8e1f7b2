"""Macro F1: the plain mean over labels of F1 = 2 tp / (2 tp + fp + fn), so that rare labels count as much as others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inlay.eval.metrics import Additive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inlay.eval import Record


class F1(Additive):
    """In points from 0 to 100. A label that is neither expected nor chosen anywhere is left out of the mean."""

    title = "F1"
    scores = ("f1",)
    needs = "choice"
    fields = ("chosen", "gold", "labels")
    unit = "points"
    higher_is_better = True
    per_example = False

    def signature(self, references: int | None = 1) -> str:
        return "choice:sum-of-label-nll|average:macro|labels:present"

    def statistics(self, record: Record) -> NDArray[np.float64]:
        """For L labels: true positives, false positives, false negatives of each: shape (3 L,)."""
        import numpy as np

        counts = np.zeros((3, len(record.labels)))
        if record.chosen == record.gold:
            counts[0, record.gold] = 1
        else:
            counts[1, record.chosen] = counts[2, record.gold] = 1
        return counts.reshape(-1)

    def value(self, sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        import numpy as np

        hits, false_positives, false_negatives = np.split(sums, 3, axis=-1)
        total = 2 * hits + false_positives + false_negatives
        f1 = np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)
        return 100 * f1.sum(axis=-1, keepdims=True) / (total > 0).sum(axis=-1, keepdims=True)
