"""Language modeling: text of any kind, learned and scored as it stands.

    {"text": "The lamp on the quay had not been lit for years. ..."}

A text may be longer than the model's context: it is trained in parts, and scored in windows that overlap, each token
once (`eval.stride`). There is no prompt and nothing is generated; the benchmark is perplexity and bits per byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from inlay.eval import Example, Text
from inlay.tuner.data.tasks import Holds, Task


class LanguageModeling(Task):
    """Texts."""

    title = "language modeling"
    columns: ClassVar[Mapping[str, Holds]] = {"text": "text"}
    metrics = ("perplexity", "bits_per_byte")
    answers = "read"

    def examples(self, row: Mapping[str, object], row_id: str, *, training: bool) -> list[Example]:
        return [Text(row_id, cast(str, row["text"]))]

    def cut(self, row: Mapping[str, object], share: float) -> Mapping[str, object]:
        """A text of any length fits, in parts."""
        return row
