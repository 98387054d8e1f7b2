"""ROUGE-1, -2, -L and -Lsum: overlap of an output with a reference in words, word pairs and longest common sequence.

rouge_score compares; what is ours is the tokenizer outside the Latin script, where rouge_score's own, `[a-z0-9]+`,
finds no token and scores identical texts 0. ROUGE-Lsum takes lines for sentences, as rouge_score does: a text in one
line has ROUGE-Lsum = ROUGE-L. In Chinese and Japanese, where texts are hardly ever broken into lines and the marks
that end a sentence are used for nothing else, a sentence ends at such a mark too.

Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
"""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from inlay.eval.metrics import Mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rouge_score.rouge_scorer import RougeScorer

    from inlay.eval import Record

# The languages of ISO 639-1 that are written in the Latin script.
_LATIN = (
    "aa af ak an ay az bi bm br bs ca ch co cs cy da de ee en eo es et eu ff fi fj fo fr fy ga gd gl gn gv ha ho hr ht "
    "hu hz ia id ie ig ik io is it jv kg ki kj kl kr kw la lb lg li ln lt lu lv mg mh mi ms mt na nb nd ng nl nn no nr "
    "nv ny oc om pl pt qu rm rn ro rw sc se sg sk sl sm sn so sq ss st su sv sw tk tl tn to tr ts tw ty uz ve vi vo wa "
    "wo xh yo za zu"
)
# Scripts without spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han.
SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
_SENTENCE_END = re.compile("([。！？][”’」』）]*)(?=[^\n。！？”’」』）])")
_TOKEN = re.compile("cm*|[wm]+")  # in the kinds of characters, not in the text


class UnicodeTokenizer:
    """Words of letters, digits and marks, in lower case; in a script without spaces every character is a word.

    On ASCII text it yields what rouge_score's own tokenizer yields. A combining mark stays with the letter before it.
    """

    def tokenize(self, text: str) -> list[str]:
        text = unicodedata.normalize("NFC", text.lower())
        kinds = "".join(map(_kind, text))
        return [text[slice(*found.span())] for found in _TOKEN.finditer(kinds)]


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """`w` for a part of a word, `m` for a mark, `c` for a character that is a word, else a space."""
    category = unicodedata.category(character)[0]
    if category == "M":
        return "m"
    if category not in "LN":
        return " "
    return "c" if SPACELESS.match(character) else "w"


class Rouge(Mean):
    """Mean F1 over examples in points from 0 to 100; with several references the best one of each example counts."""

    title = "ROUGE"
    main = "rougeL"
    scores = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    needs = "text"
    fields = ("prediction", "references")
    unit = "points"
    higher_is_better = True

    def signature(self, references: int | None = 1) -> str:
        from importlib.metadata import version

        return (
            f"nrefs:{references or 'var'}|refs:max|tok:{'latin' if self._is_latin else 'unicode'}|stem:no|"
            f"split:{'nl+marks' if self._is_marked else 'nl'}|agg:mean-f1|version:rouge_score {version('rouge_score')}"
        )

    def statistics(self, record: Record) -> NDArray[np.float64]:
        """The four F1 values from 0 to 1: shape (4,)."""
        import numpy as np

        texts = [record.prediction, *record.references]
        if self._is_marked:
            texts = [_SENTENCE_END.sub(r"\1\n", text) for text in texts]
        best = self._scorer.score_multi(texts[1:], texts[0])
        return np.array([best[name].fmeasure for name in self.scores], dtype=np.float64)

    @property
    def _is_marked(self) -> bool:
        """Whether sentences end at marks of their own."""
        return self.language in ("zh", "ja")

    @property
    def _is_latin(self) -> bool:
        return self.language in _LATIN.split()

    @cached_property
    def _scorer(self) -> RougeScorer:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(list(self.scores), tokenizer=None if self._is_latin else UnicodeTokenizer())
