"""Dialogue: the next reply of the assistant.

    {"messages": [{"role": "user", "content": "My lamp flickers."}, {"role": "assistant", "content": "Since when?"}]}

Training learns from every assistant turn of a dialogue. The benchmark asks for the last assistant turn, given its true
history (`eval.turns: all`: for each one).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from inlay.eval import Example, Reply, Turn
from inlay.tuner.data.tasks import Holds, Task


class Dialogue(Task):
    """Replies to a user, turn by turn."""

    title = "dialogue"
    columns: ClassVar[Mapping[str, Holds]] = {"messages": "messages"}
    metrics = ("rouge", "bleu", "perplexity", "bits_per_byte", "empty", "unfinished")

    def examples(self, row: Mapping[str, object], row_id: str, *, training: bool) -> list[Example]:
        turns = [Turn(m["role"], m["content"]) for m in cast(list[dict], row["messages"])]
        answers = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
        if training:
            last = answers[-1]
            history = tuple(Turn(t.role, t.text, trained=i in answers) for i, t in enumerate(turns[:last]))
            return [Reply(row_id, history, (turns[last].text,))]
        if not self.all_turns:
            return [Reply(row_id, tuple(turns[: answers[-1]]), (turns[answers[-1]].text,))]
        return [Reply(f"{row_id}:{n}", tuple(turns[:i]), (turns[i].text,)) for n, i in enumerate(answers)]

    def cut(self, row: Mapping[str, object], share: float) -> Mapping[str, object]:
        """Drops the oldest exchanges; a system message stays."""
        messages = cast(list[dict], row["messages"])
        system = messages[:1] if messages[0]["role"] == "system" else []
        rest = messages[len(system) :]
        last = max(i for i, message in enumerate(rest) if message["role"] == "assistant")
        starts = [i for i, message in enumerate(rest[:last]) if message["role"] == "user"]
        first = starts[min(int((1 - share) * len(starts)), len(starts) - 1)]
        return {**row, "messages": [*system, *rest[first:]]}
