"""Training rows that stand in a split to be measured: counted on normalized text, and by default not trained on."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from inlay.eval import Text
from inlay.tuner.data.formats import Row
from inlay.tuner.data.tasks import Task
from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.records import OverlapRecord


@dataclass(frozen=True)
class Sifted:
    """Training rows after a look at the other splits. `duplicates`: rows that repeat an earlier one of those kept."""

    rows: list[Row]
    overlap: dict[str, OverlapRecord]
    duplicates: int


def sift(
    task: Task,
    train: Sequence[Row],
    others: Mapping[str, Sequence[Row]],
    policy: Literal["drop_train", "keep", "stop"],
) -> Sifted:
    """Compares what the model is asked in training with what it is asked when it is measured.

    Two rows are the same where their prompts are, in any case, spacing and Unicode form. Whether their answers are the
    same too is counted apart.

    Args:
        train: the training rows.
        others: rows by the name of the split that is measured.
        policy: leave the training rows out that stand in another split, keep them, or refuse.

    Raises:
        RequestError: rows overlap and `policy` is `stop`, or no training row would be left.
    """
    asked = [_asked(task, row) for row in train]
    drop: set[int] = set()
    overlap = {}
    for split, rows in others.items():
        known = [_asked(task, row) for row in rows]
        prompts, wholes = {prompt for prompt, _ in known}, set(known)
        shared = [i for i, (prompt, _) in enumerate(asked) if prompt in prompts]
        whole = sum(asked[i] in wholes for i in shared)
        overlap[split] = OverlapRecord(prompt_and_answer=whole, prompt_only=len(shared) - whole)
        drop |= set(shared)
        if shared and policy == "stop":
            row = train[shared[0]]
            raise RequestError(
                Problem(
                    f"{len(shared)} training rows stand in {split} too, {whole} of them with the same answer; this is "
                    "the first",
                    file=row.file,
                    line=row.line,
                    path="task.overlap",
                    help="remove them, or set task.overlap: drop_train",
                )
            )
    kept = [i for i in range(len(train)) if policy != "drop_train" or i not in drop]
    if not kept:
        message = "every training row stands in the rows to measure on too; none is left to train on"
        raise RequestError(Problem(message, path="task.data", help="name other files for the splits"))
    return Sifted([train[i] for i in kept], overlap, len(kept) - len({asked[i] for i in kept}))


def normalize(text: str) -> str:
    """Text without regard to case, spacing and Unicode form (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _asked(task: Task, row: Row) -> tuple[str, str]:
    """What is asked in a row, and its answer; both normalized. A text is asked as it stands."""
    try:
        example = task.examples(row.values, row.id, training=True)[-1]
    except RequestError:  # told later, with all others of its kind
        return row.id, ""
    if isinstance(example, Text):
        return normalize(example.text), ""
    return "\n".join(f"{turn.role} {normalize(turn.text)}" for turn in example.turns), normalize(example.answer)
