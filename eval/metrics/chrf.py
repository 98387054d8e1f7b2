"""chrF2: F-score of character n-grams up to six, recall counting twice; needs no word tokenizer. sacrebleu counts.

Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation".
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from inlay.eval.metrics import Additive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sacrebleu.metrics import CHRF

    from inlay.eval import Record


class Chrf(Additive):
    """Corpus chrF2 in points from 0 to 100; with several references the best one of each example counts."""

    title = "chrF"
    scores = ("chrf",)
    needs = "text"
    fields = ("prediction", "references")
    unit = "points"
    higher_is_better = True

    def signature(self, references: int | None = 1) -> str:
        """sacrebleu's own, e.g. `nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0`."""
        from sacrebleu.metrics import CHRF

        chrf = CHRF()
        # sacrebleu learns the number of references by scoring something; None marks one that is absent.
        streams: list[list[Any]] = [["", ""]] * references if references else [["", ""], ["", None]]
        chrf.corpus_score(["", ""], streams)
        return str(chrf.get_signature())

    def statistics(self, record: Record) -> NDArray[np.float64]:
        """For each order 1 to 6: n-grams of the output, of the best reference, in both: shape (18,)."""
        import numpy as np

        # The counts have no public name in sacrebleu; golden scores in the tests hold this one.
        [counts] = self._chrf._extract_corpus_statistics([record.prediction], [[text] for text in record.references])
        return np.array(counts, dtype=np.float64)

    def value(self, sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        import numpy as np

        output, reference, matched = (sums[..., start::3] for start in range(3))
        defined = (output > 0) & (reference > 0)
        orders = np.maximum(defined.sum(axis=-1), 1)
        precision, recall = (
            np.divide(matched, all_, out=np.zeros_like(matched), where=defined).sum(axis=-1) / orders
            for all_ in (output, reference)
        )
        weighted = 4 * precision + recall
        score = np.divide(500 * precision * recall, weighted, out=np.zeros_like(weighted), where=weighted > 0)
        return score[..., None]

    @cached_property
    def _chrf(self) -> CHRF:
        from sacrebleu.metrics import CHRF

        return CHRF()
