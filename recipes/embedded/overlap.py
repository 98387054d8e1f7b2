"""Measures what the splits of the embedded task data share, and fails where they share too much.

A test answer must not be had by heart: no person, product, town or order number may stand in two splits, and no eight
words of a test answer, names and numbers masked, may stand in more than one in twenty of the training answers. Words
that a card of facts holds are copied, not had by heart, and do not count.

    python recipes/embedded/overlap.py
"""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

from world import POOLS, STRATA, long_names

DATA = Path(__file__).resolve().parent / "data"
SPLITS = ("train", "validation", "test")
GRAM, LIMIT = 8, 0.05
NAMES = {pool: {name for stratum in STRATA for name in long_names(pool, stratum)} for pool in POOLS}
ALL_NAMES = set().union(*NAMES.values())


def rows(task: str, split: str) -> list[dict]:
    """Returns the rows of one split."""
    lines = (DATA / f"{task}-{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def texts(row: dict) -> list[str]:
    """Returns every text of a row."""
    if "messages" in row:
        return [message["content"] for message in row["messages"]]
    return [row["source"], *row["target"]] if "source" in row else [
        value for key, value in row.items() if key != "label"]


def answers(row: dict) -> list[str]:
    """Returns what a model is asked to write for a row."""
    if "messages" in row:
        return [message["content"] for message in row["messages"] if message["role"] == "assistant"]
    return row["target"] if "target" in row else [row["summary"]]


def entities(split_rows: list[dict]) -> dict[str, set[str]]:
    """Returns the names of each kind and the order numbers that stand in the rows."""
    words = {word for row in split_rows for text in texts(row) for word in re.findall(r"[A-Za-z]+|\d{5}", text)}
    found = {kind: words & names for kind, names in NAMES.items()}
    return found | {"orders": {word for word in words if word.isdigit()}}


def masked_grams(answer: str) -> set[tuple[str, ...]]:
    """Returns the eight-word runs of an answer in which every name and number is one and the same mask."""
    words = ["*" if word.isdigit() or word in ALL_NAMES else word.lower()
             for word in re.findall(r"[A-Za-z]+|\d+", answer)]
    return {tuple(words[start:start + GRAM]) for start in range(len(words) - GRAM + 1)}


def measure_task(task: str) -> dict[str, object]:
    """Returns shared entities, the most frequent shared run and how many whole answers and inputs are repeated."""
    data = {split: rows(task, split) for split in SPLITS}
    named = {split: entities(data[split]) for split in SPLITS}
    shared = {f"{kind}: {one} and {other}": len(named[one][kind] & named[other][kind])
              for kind in (*NAMES, "orders") for one, other in itertools.combinations(SPLITS, 2)}
    inputs = {split: {json.dumps(texts(row)) for row in data[split]} for split in SPLITS}
    measured: dict[str, object] = {
        "rows": {split: len(data[split]) for split in SPLITS}, "shared entities": sum(shared.values()),
        "test rows that stand in train": len(inputs["test"] & inputs["train"]),
        "distinct training rows": len(inputs["train"])}
    if task not in ("classification", "language_modeling"):
        learned = [masked_grams(answer) for row in data["train"] for answer in answers(row)]
        counts = Counter(gram for grams in learned for gram in grams)
        asked = {gram for row in data["test"] for answer in answers(row)
                 for gram in masked_grams(answer) - masked_grams(row.get("source", ""))}
        worst = max(asked, key=lambda gram: (counts[gram], gram))
        measured |= {"worst run": " ".join(worst), "its share": counts[worst] / len(learned)}
    return measured


def main() -> int:
    """Prints the measurement of every task; returns 1 where a limit is broken."""
    broken = 0
    for task in ("summarization", "dialogue", "classification", "text_to_text", "language_modeling"):
        measured = measure_task(task)
        print(task, json.dumps(measured))
        broken += measured["shared entities"] != 0 or measured["test rows that stand in train"] != 0
        broken += float(measured.get("its share", 0)) > LIMIT  # type: ignore[arg-type]
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
