"""Summarization: a shorter text that says what a document says.

    {"document": "Ana: The lamp I bought flickers. ...", "summary": "Ana's lamp flickers; Ben sends a new one."}

`summary` may be a list: the first is trained on, the benchmark compares with all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from inlay.eval import Example, Reply, Turn
from inlay.tuner.data.tasks import Holds, Task


class Summarization(Task):
    """Documents to summaries."""

    title = "summarization"
    columns: ClassVar[Mapping[str, Holds]] = {"document": "text", "summary": "texts"}
    metrics = ("rouge", "bleu", "perplexity", "bits_per_byte", "empty", "unfinished")
    default_prompt = "{document}\n\nSummary:"
    prompt_fields = ("document",)

    def examples(self, row: Mapping[str, object], row_id: str, *, training: bool) -> list[Example]:
        summary = row["summary"]
        references = (summary,) if isinstance(summary, str) else tuple(cast(list[str], summary))
        return [Reply(row_id, (Turn("prompt", self.fill(row)),), references)]

    def cut(self, row: Mapping[str, object], share: float) -> Mapping[str, object]:
        """Keeps the beginning of the document."""
        document = cast(str, row["document"])
        return {**row, "document": document[: int(len(document) * share)]}
