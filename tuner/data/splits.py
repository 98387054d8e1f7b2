"""Splits drawn by a stable hash of each row's content, and samples of a split drawn the same way.

A row's place depends on nothing but its own content: the order of the rows, and rows added later, change nothing for
the others, and two rows of equal content are always on the same side.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping

from inlay.tuner.data.formats import Row


def position(row: Row, purpose: str) -> float:
    """A row's place in [0, 1), uniform over contents and independent between purposes."""
    digest = hashlib.sha256(f"inlay {purpose} ".encode() + row.digest).digest()
    return int.from_bytes(digest[:6]) / 2**48


def draw(row: Row, shares: Mapping[str, float]) -> str:
    """The split of a row of a training file.

    Args:
        row: the row.
        shares: part of the rows that goes to a split, by its name. The splits take their parts in alphabetical order
            (`test` before `validation`), so a larger validation split leaves the test split as it was.

    Returns:
        one of the names, or `train`.
    """
    place, edge = position(row, "split"), 0.0
    for name in sorted(shares):
        edge += shares[name]
        if place < edge:
            return name
    return "train"


class Sample:
    """At most `size` of the rows that are added (all of them where it is None), in the order in which they came.

    Kept are the rows that come first by content hash: taking the first rows of the file instead would be biased in a
    file that is sorted. No more than `size` rows are held at a time.
    """

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._count = 0
        self._rows: list[tuple[float, int, Row]] = []  # a heap where a size is given: the last by hash on top

    def add(self, row: Row) -> None:
        """Offers a row."""
        self._count += 1
        if self._size is None:
            self._rows.append((0.0, -self._count, row))
            return
        entry = (-position(row, "sample"), -self._count, row)
        if len(self._rows) < self._size:
            heapq.heappush(self._rows, entry)
        else:
            heapq.heappushpop(self._rows, entry)

    def rows(self) -> list[Row]:
        """The rows kept."""
        return [row for _, _, row in sorted(self._rows, key=lambda entry: -entry[1])]
