"""The contract of a metric. Every other module of this folder is one metric: `rouge` is `rouge.py`, class `Rouge`.

A metric is split so that resampling is cheap: `statistics` turns one record into a fixed number of float64 values, and
`value` turns sums of those over any resample of the examples into scores, vectorised.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from inlay.eval import Record


class Metric(ABC):
    """One metric, for one language.

    Attributes:
        scores: the names of the scores it yields (ROUGE yields four).
        needs: what a record must hold: generated `text`, the reference's `likelihood`, or a `choice` among labels.
        unit: of every score.
        higher_is_better: None where neither direction is better.
        ratio: a change is told relative to the old value (perplexity), not as a difference.
        proportion: a mean of zeros and ones, whose interval is Wilson's.
    """

    scores: ClassVar[tuple[str, ...]]
    needs: ClassVar[Literal["text", "likelihood", "choice"]]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool | None]
    ratio: ClassVar[bool] = False
    proportion: ClassVar[bool] = False

    def __init__(self, language: str) -> None:
        self.language = language

    @abstractmethod
    def signature(self) -> str:
        """Every setting and version that can change the numbers, in one line."""

    @abstractmethod
    def statistics(self, record: Record) -> NDArray[np.float64]:
        """The record's contribution, shape (k,); what is summed over examples."""

    @abstractmethod
    def value(self, sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """The scores from sums over `n` examples: shape (..., k) -> (..., len(scores))."""
