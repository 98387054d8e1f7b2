"""The order of the training rows, and their batches: labels set by position, padding on the right."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from torch.utils.data import Sampler

from inlay.tuner.data.prepared import TrainingRow

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100


class Order(Sampler[int]):
    """Row indices, shuffled anew each epoch from the seed alone: no other random draw changes what is seen when."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.rows

    def first(self, rows: int) -> list[int]:
        """The first rows of an order that was not begun."""
        return list(islice(Order(self.rows, self.seed), rows))

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.rows))
        random.Random(f"{self.seed}:{self.epoch}").shuffle(order)
        self.epoch += 1
        return iter(order)


class Collator:
    """Pads rows on the right into one batch of tensors (rows, longest row)."""

    def __init__(self, rows: Sequence[TrainingRow], pad_id: int, start_id: int | None) -> None:
        self.rows = rows
        self.pad_id = pad_id
        self.start_id = start_id  # of a sequence-to-sequence decoder

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        import torch

        rows = [self.rows[i] for i in indices]
        batch = {"rows": torch.tensor(list(indices))}
        labels = [[t if on else IGNORED for t, on in zip(r.ids, r.trained, strict=True)] for r in rows]
        if self.start_id is None:
            batch["input_ids"], batch["attention_mask"] = self._pad([row.ids for row in rows])
            # The loss shifts nothing: the label of a position is the token after it.
            batch["labels"] = self._pad([[*row[1:], IGNORED] for row in labels], IGNORED)[0]
        else:
            batch["input_ids"], batch["attention_mask"] = self._pad([row.source for row in rows])
            batch["decoder_input_ids"] = self._pad([[self.start_id, *row.ids[:-1]] for row in rows])[0]
            batch["labels"] = self._pad(labels, IGNORED)[0]
        return batch

    def _pad(self, rows: Sequence[Sequence[int]], fill: int | None = None) -> tuple[Tensor, Tensor]:
        import torch

        width = max(map(len, rows))
        fill = self.pad_id if fill is None else fill
        values = torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return values, mask
