"""Token F1: how many words an output and a reference share, the measure of SQuAD for answers that are nearly right.

    F1 = 2 * shared / (words of the output + words of the reference), after the normalization of exact match

In a script without spaces every character is a word. Rajpurkar et al. 2016, section 6.1.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from inlay.eval.metrics import Mean
from inlay.eval.metrics.exact_match import normalize
from inlay.eval.metrics.rouge import SPACELESS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inlay.eval import Record


def words(text: str) -> list[str]:
    """The words of a text in normal form."""
    return SPACELESS.sub(lambda found: f" {found[0]} ", normalize(text)).split()


def f1(prediction: str, reference: str) -> float:
    """Between 0 and 1; two texts without words agree."""
    found, wanted = words(prediction), words(reference)
    if not found or not wanted:
        return float(found == wanted)
    return 2 * (Counter(found) & Counter(wanted)).total() / (len(found) + len(wanted))


class TokenF1(Mean):
    """Mean over examples in points from 0 to 100; with several references the best one of each example counts."""

    title = "token F1"
    scores = ("token_f1",)
    needs = "text"
    fields = ("prediction", "references")
    unit = "points"
    higher_is_better = True

    def signature(self, references: int | None = 1) -> str:
        return f"nrefs:{references or 'var'}|refs:max|norm:squad+unicode-punctuation|tok:words+characters|agg:mean-f1"

    def statistics(self, record: Record) -> NDArray[np.float64]:
        """F1 with the best reference: shape (1,)."""
        import numpy as np

        return np.array([max(f1(record.prediction, text) for text in record.references)], dtype=np.float64)
