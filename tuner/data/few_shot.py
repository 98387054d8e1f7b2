"""Few-shot prompts: training examples in front of what is asked, as the untouched base may need to know what is meant.

With a chat template the examples are earlier turns. Without one they are text, a blank line after each:

    {prompt 1} {answer 1}\\n\\n{prompt 2} {answer 2}\\n\\n{prompt}
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from typing import cast

from inlay.eval import Choice, Example, Reply, Turn
from inlay.tuner.data.formats import Row
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.data.tasks import Task

DRAWN = 8  # rows looked at for each that is shown


def choose(task: Task, renderer: Renderer, rows: Sequence[Row], number: int, seed: int) -> tuple[Example, ...]:
    """Examples to show: the shortest of eight times as many drawn ones, of a choice no label again before its time.

    Args:
        rows: the training rows.
        number: how many.
        seed: of the draw.
    """
    draw = random.Random(f"few-shot:{seed}")
    drawn = draw.sample(list(rows), min(DRAWN * number, len(rows)))
    found = [task.examples(row.values, row.id, training=True)[-1] for row in drawn]
    found.sort(key=lambda example: len(renderer.prompt_ids(example.turns)))
    taken: list[Example] = []
    seen: Counter[str] = Counter()
    while found and len(taken) < number:
        fewest = min(seen[_kind(example)] for example in found)
        best = next(example for example in found if seen[_kind(example)] == fewest)
        found.remove(best)
        taken.append(best)
        seen[_kind(best)] += 1
    draw.shuffle(taken)
    return tuple(taken)


def behind(renderer: Renderer, shown: Sequence[Example], example: Example) -> Example:
    """The example with others in front of what it asks."""
    asked = cast("Reply | Choice", example)
    if renderer.prompt_format != "plain":
        before = [turn for other in shown for turn in (*_spoken(other), Turn("assistant", other.answer))]
        system = [turn for turn in asked.turns if turn.role == "system"]
        return dataclasses.replace(asked, turns=(*system, *before, *_spoken(asked)))
    end = str(renderer.tokenizer.eos_token)
    parts = [f"{_text(renderer, other, end)} {other.answer.strip()}" for other in shown]
    return dataclasses.replace(asked, turns=(Turn("prompt", "\n\n".join([*parts, _text(renderer, asked, end)])),))


def _spoken(example: Example) -> list[Turn]:
    """The turns but the system's, which stands once, before everything."""
    return [Turn(turn.role, turn.text) for turn in example.turns if turn.role != "system"]


def _text(renderer: Renderer, example: Example, end: str) -> str:
    return renderer.prompt_text(example.turns).replace(end, "")


def _kind(example: Example) -> str:
    """What should not be shown twice before everything is shown once."""
    return example.answer if isinstance(example, Choice) else ""
