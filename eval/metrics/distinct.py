"""Distinct-1 and -2: of all words, and of all pairs of neighbouring words, in all outputs, the share of different ones.

A model that says the same to everybody scores low. The number falls as outputs grow longer or more, so it compares
models on the same examples alone. In a script without spaces every character is a word. Li et al. 2016, "A
Diversity-Promoting Objective Function for Neural Conversation Models", section 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inlay.eval.metrics import Whole
from inlay.eval.metrics.rouge import UnicodeTokenizer

if TYPE_CHECKING:
    from inlay.eval import Record


class Distinct(Whole):
    """In % of the words and pairs of all outputs; 0 where there are none."""

    title = "distinct"
    scores = ("distinct1", "distinct2")
    needs = "text"
    fields = ("prediction",)
    unit = "%"
    higher_is_better = None

    def signature(self, references: int | None = 1) -> str:
        return "ngrams:1,2|case:lower|tok:unicode|agg:all-outputs"

    def of(self, records: Sequence[Record]) -> list[float]:
        outputs = [UnicodeTokenizer().tokenize(record.prediction) for record in records]
        scores = []
        for size in (1, 2):
            grams = [tuple(words[i : i + size]) for words in outputs for i in range(len(words) - size + 1)]
            scores.append(100 * len(set(grams)) / len(grams) if grams else 0.0)
        return scores
