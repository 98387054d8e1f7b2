"""Training rows that stand in a split to be measured: counted on normalized text, and by default not trained on."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from inlay.eval import Reply, Text
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
    learned = [_pairs(task, row, training=True) for row in train]
    drop: set[int] = set()
    overlap = {}
    for split, rows in others.items():
        known = set().union(*(_pairs(task, row, training=False) for row in rows))
        prompts = {prompt for prompt, _ in known}
        shared = [i for i, pairs in enumerate(learned) if any(prompt in prompts for prompt, _ in pairs)]
        whole = sum(not known.isdisjoint(learned[i]) for i in shared)
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
    return Sifted([train[i] for i in kept], overlap, len(kept) - len({frozenset(learned[i]) for i in kept}))


def normalize(text: str) -> str:
    """Text without regard to case, spacing and Unicode form (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _pairs(task: Task, row: Row, *, training: bool) -> set[tuple[str, str]]:
    """What is asked in a row, each with an answer that is learned or compared with; all normalized.

    Of a dialogue in training that is every reply; where it is measured, those that are measured. A text is asked as it
    stands.
    """
    try:
        examples = task.examples(row.values, row.id, training=training)
    except RequestError:  # told later, with all others of its kind
        return {(row.id, "")}
    pairs = set()
    for example in examples:
        if isinstance(example, Text):
            pairs.add((normalize(example.text), ""))
            continue
        asked = [f"{turn.role} {normalize(turn.text)}" for turn in example.turns]
        answers = example.references if isinstance(example, Reply) and not training else (example.answer,)
        pairs |= {("\n".join(asked), normalize(answer)) for answer in answers}
        earlier = [i for i, turn in enumerate(example.turns) if turn.trained]
        pairs |= {("\n".join(asked[:i]), normalize(example.turns[i].text)) for i in earlier}
    return pairs
