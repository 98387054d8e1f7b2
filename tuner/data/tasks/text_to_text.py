"""Text to text: whatever has a source and an expected output - data-to-text, translation, question answering.

    {"source": "name[The Vaults], food[Italian], area[riverside]", "target": ["The Vaults serves Italian food by ..."]}

`target` may be a list: the first is trained on, the benchmark compares with all. A prompt may name other columns in the
place of `source`, which then are what a row must have: `prompt: "{context}\\n\\nQuestion: {question}\\nAnswer:"` with
`columns: {target: answers}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from inlay.eval import Example, Reply, Turn
from inlay.tuner.data.tasks import Holds, Task


class TextToText(Task):
    """Sources to targets."""

    title = "text-to-text"
    columns: ClassVar[Mapping[str, Holds]] = {"source": "text", "target": "texts"}
    metrics = ("rouge", "bleu", "chrf", "perplexity", "bits_per_byte", "empty", "unfinished")
    default_prompt = "{source}\n\nAnswer:"
    prompt_fields = ("source",)
    free_fields = True

    def examples(self, row: Mapping[str, object], row_id: str, *, training: bool) -> list[Example]:
        return [Reply(row_id, (Turn("prompt", self.fill(row)),), tuple(cast(list[str], row["target"])))]

    def cut(self, row: Mapping[str, object], share: float) -> Mapping[str, object]:
        """Keeps the beginning of the longest text of the prompt: of a question's context, not of the question."""
        texts = {name: cast(str, value) for name, value in row.items() if name != "target"}
        longest = max(texts, key=lambda name: len(texts[name]))
        return {**row, longest: texts[longest][: int(len(texts[longest]) * share)]}
