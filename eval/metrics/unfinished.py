"""Unfinished outputs: the share of examples whose text was cut at the token limit before the model ended it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inlay.eval.metrics import Mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inlay.eval import Record


class Unfinished(Mean):
    """In % of the examples."""

    title = "unfinished outputs"
    scores = ("unfinished",)
    needs = "text"
    fields = ("finished",)
    unit = "%"
    higher_is_better = False
    proportion = True

    def signature(self, references: int | None = 1) -> str:
        return "unfinished:token limit|agg:mean"

    def statistics(self, record: Record) -> NDArray[np.float64]:
        """1 where the output was cut, else 0: shape (1,)."""
        import numpy as np

        return np.array([not record.finished], dtype=np.float64)
