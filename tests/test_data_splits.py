"""Data sources: splits named or drawn, samples of them, what is recorded of the files, and the memory it takes."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from inlay.tuner.data.columns import Columns
from inlay.tuner.data.formats import Row
from inlay.tuner.data.sources import Source, open_splits
from inlay.tuner.data.splits import Sample, draw
from inlay.tuner.problems import RequestError

LABELS = Columns({"text": "text", "label": "label"})
GOOD = b'{"text": "t", "label": "x"}\n'
BAD = b'{"text": "t", "label": null}\n'


MEMORY_PROBE = """
import sys
from pathlib import Path
from inlay.tuner.data.sources import Source, open_splits
from inlay.tuner.data.columns import Columns

def peak_kilobytes():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

before = peak_kilobytes()
source = Source(files={"train": Path(sys.argv[1])}, shown={"train": "a"}, max_rows={"train": 100})
rows = open_splits(source, Columns({"document": "text", "summary": "texts"}), ("train",)).rows["train"]
print(len(rows), peak_kilobytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's count of resident memory")
def test_f16_reader_memory(tmp_path):
    """Rows of 6 kB, 60 MB in all: the rows that are kept are read without the others being held."""
    with (tmp_path / "a.jsonl").open("w") as file:
        for n in range(10_000):
            file.write(json.dumps({"document": f"{n} " + "word " * 1200, "summary": "s"}) + "\n")
    assert (tmp_path / "a.jsonl").stat().st_size > 60e6
    command = [sys.executable, "-c", MEMORY_PROBE, str(tmp_path / "a.jsonl")]
    rows, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(rows) == 100
    assert int(grown) < 30 * 1024


def rows_of(count: int, start: int = 0) -> list[Row]:
    return [Row({"text": f"row {n}"}, "a.jsonl", n + 1) for n in range(start, start + count)]


def test_s37_split_stable_under_shuffle():
    shares = {"validation": 0.1, "test": 0.2}
    rows = rows_of(5000)
    drawn = {row.id: draw(row, shares) for row in rows}
    shuffled = random.Random(1).sample(rows, len(rows))
    assert {row.id: draw(row, shares) for row in shuffled} == drawn
    # Rows of equal content are on one side, wherever they stand and whatever their file.
    assert {draw(Row(dict(row.values), "b.csv", 9), shares) == drawn[row.id] for row in rows} == {True}
    # The order in which a recipe names the splits, or a larger validation split, does not move a test row.
    larger = {"test": 0.2, "validation": 0.3}
    assert {row.id for row in rows if draw(row, larger) == "test"} == {
        n for n, split in drawn.items() if split == "test"
    }
    # Four standard deviations of a binomial share.
    for split, share in {**shares, "train": 0.7}.items():
        assert abs(list(drawn.values()).count(split) / 5000 - share) < 4 * (share * (1 - share) / 5000) ** 0.5


def sampled(rows: list[Row], size: int) -> list[Row]:
    sample = Sample(size)
    for row in rows:
        sample.add(row)
    return sample.rows()


def test_s37_sample_is_stable_and_not_the_head():
    rows = rows_of(2000)
    kept = sampled(rows, 200)
    assert len(kept) == 200
    assert [row.line for row in kept] == sorted(row.line for row in kept)
    shuffled = random.Random(2).sample(rows, len(rows))
    assert {row.id for row in sampled(shuffled, 200)} == {row.id for row in kept}
    # Of a sorted file every part is represented: the mean line is within four standard errors of the middle.
    assert abs(sum(row.line for row in kept) / 200 - 1000.5) < 4 * (2000**2 / 12 / 200) ** 0.5
    # Rows that are added can only push rows out.
    added = rows_of(500, start=2000)
    assert {row.id for row in sampled(rows + added, 200)} <= {row.id for row in kept + added}
    assert [row.line for row in sampled(rows, 5000)] == list(range(1, 2001))


def test_s37_open_splits_draws_from_the_training_file(tmp_path):
    lines = [json.dumps({"text": f"row {n % 900}", "label": "x", "id": n}) + "\n" for n in range(1000)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    source = Source(
        files={"train": tmp_path / "a.jsonl"},
        shown={"train": "a.jsonl"},
        draw={"validation": 0.1, "test": 0.1},
        max_rows={"test": 20},
    )
    splits = open_splits(source, LABELS, ("train", "validation", "test"))
    ids = {name: {row.id for row in rows} for name, rows in splits.rows.items()}
    assert not ids["train"] & ids["validation"]
    assert not ids["train"] & ids["test"]
    assert len(splits.rows["test"]) == 20
    # A hundred rows occur twice but for their `id`, which is not the task's: each pair is in one split.
    assert len(ids["train"] | ids["validation"]) > 700
    only = open_splits(source, LABELS, ("test",))
    assert only.rows == {"test": splits.rows["test"]}
    (tmp_path / "a.jsonl").write_text("".join(random.Random(3).sample(lines, len(lines))))
    again = open_splits(source, LABELS, ("train", "validation", "test"))
    assert {name: {row.id for row in rows} for name, rows in again.rows.items()} == ids


def test_s37_a_named_split_is_not_drawn_from(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "{name}{n}", "label": "x"}}\n' for n in range(50)))
    files = {"train": tmp_path / "a.jsonl", "validation": tmp_path / "b.jsonl"}
    source = Source(files, {name: path.name for name, path in files.items()}, draw={"test": 0.5})
    rows = open_splits(source, LABELS, ("train", "validation", "test")).rows
    assert {row.file for row in rows["validation"]} == {"b.jsonl"}
    assert len(rows["validation"]) == 50
    assert {row.file for row in rows["test"]} == {"a.jsonl"}
    assert len(rows["train"]) + len(rows["test"]) == 50


def test_inputs_are_recorded_by_name_hash_and_size(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "b.jsonl").write_bytes(GOOD * 2)
    files = {"train": tmp_path / "a.jsonl", "test": tmp_path / "b.jsonl"}
    splits = open_splits(
        Source(files, {"train": "data/a.jsonl", "test": str(files["test"])}), LABELS, ("train", "test")
    )
    assert [(each.name, each.sha256, each.bytes) for each in splits.inputs] == [
        ("data/a.jsonl", hashlib.sha256(GOOD).hexdigest(), len(GOOD)),
        ("b.jsonl", hashlib.sha256(GOOD * 2).hexdigest(), 2 * len(GOOD)),
    ]
    assert splits.commit is None


def test_mistakes_of_all_files_come_at_once(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(GOOD + BAD)
    (tmp_path / "b.jsonl").write_bytes(GOOD + GOOD + b"{")
    files = {"train": tmp_path / "a.jsonl", "validation": tmp_path / "b.jsonl", "test": tmp_path / "c.jsonl"}
    with pytest.raises(RequestError) as failure:
        open_splits(Source(files, {name: path.name for name, path in files.items()}), LABELS, tuple(files))
    assert [(each.file, each.line) for each in failure.value.problems] == [
        ("a.jsonl", 2),
        ("b.jsonl", 3),
        ("c.jsonl", 0),
    ]


@pytest.mark.parametrize(
    ("draws", "wanted", "words"),
    [
        ({}, ("train", "test"), "there is no `test` split"),
        ({"train": 0.5}, ("train",), "has a file, and is also drawn"),
        ({"test": 0.5, "validation": 0.5}, ("train",), "leave no rows to train on"),
        ({"test": 1e-9}, ("train", "test"), "left no rows for the split `test`"),
    ],
)
def test_contradictory_sources(tmp_path, draws, wanted, words):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    source = Source(files={"train": tmp_path / "a.jsonl"}, shown={"train": "a.jsonl"}, draw=draws)
    with pytest.raises(RequestError, match=words):
        open_splits(source, LABELS, wanted)
