"""Classification: one label of a closed set.

    {"text": "The parcel never came.", "label": "delivery"}

The answer is the label whose words are most likely after the prompt: the summed log-likelihood of all its tokens, end
of text included. `task.labels` may give the words for the labels in the data (`{"0": "negative", "1": "positive"}`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

from inlay.eval import Choice, Example, Turn
from inlay.tuner.data.tasks import Holds, Task, label_problem


class Classification(Task):
    """Texts to labels."""

    title = "classification"
    columns: ClassVar[Mapping[str, Holds]] = {"text": "text", "label": "label"}
    metrics = ("accuracy", "f1")
    default_prompt = "{text}\n\nLabel:"
    prompt_fields = ("text",)
    answers = "choose"

    @property
    def learns(self) -> bool:
        return not self.labels

    def learn(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Without `task.labels`, the labels are those of the training rows, sorted, each its own word."""
        if self.learns:
            self.labels = {label: label for label in sorted({str(row["label"]) for row in rows})}

    def examples(self, row: Mapping[str, object], row_id: str, *, training: bool) -> list[Example]:
        label = str(row["label"])
        if label not in self.labels:
            raise label_problem(label, list(self.labels))
        words = tuple(self.labels.values())
        return [Choice(row_id, (Turn("prompt", self.fill(row)),), words, list(self.labels).index(label))]

    def cut(self, row: Mapping[str, object], share: float) -> Mapping[str, object]:
        """Keeps the beginning of the text."""
        text = cast(str, row["text"])
        return {**row, "text": text[: int(len(text) * share)]}
