"""Exact match: the share of outputs that equal a reference, after SQuAD's normalization.

Lower case, then without punctuation, without the articles a, an and the, white space made single. Rajpurkar et al.
2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", section 6.1, and its evaluation script (v1.1).
"""

from __future__ import annotations

import re
import string
import unicodedata
from typing import TYPE_CHECKING

from inlay.eval.metrics import Mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inlay.eval import Record


def normalize(text: str) -> str:
    """SQuAD's normal form; punctuation of every script goes, where SQuAD removes that of ASCII."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation and unicodedata.category(c)[0] != "P")
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


class ExactMatch(Mean):
    """In % of the examples; with several references one has to be met."""

    title = "exact match"
    scores = ("exact_match",)
    needs = "text"
    fields = ("prediction", "references")
    unit = "%"
    higher_is_better = True
    proportion = True

    def signature(self, references: int | None = 1) -> str:
        return f"nrefs:{references or 'var'}|refs:any|norm:squad+unicode-punctuation|agg:mean"

    def statistics(self, record: Record) -> NDArray[np.float64]:
        """1 where the output equals a reference, else 0: shape (1,)."""
        import numpy as np

        found = normalize(record.prediction)
        return np.array([any(found == normalize(text) for text in record.references)], dtype=np.float64)
