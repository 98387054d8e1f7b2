"""Data files: good ones are read right in every format, bad ones are refused with file and line, splits are stable."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inlay.tuner.data import formats
from inlay.tuner.data.columns import Columns
from inlay.tuner.data.formats import Row
from inlay.tuner.data.reader import read_rows, read_split
from inlay.tuner.data.sources import Source, open_splits
from inlay.tuner.problems import RequestError

SUMMARIES = Columns({"document": "text", "summary": "texts"})
DIALOGUES = Columns({"messages": "messages"})
LABELS = Columns({"text": "text", "label": "label"})
GOOD = b'{"document": "d", "summary": "s"}\n'
ASK, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def summary(value: str, document: str = '"d"') -> bytes:
    """A JSON line whose summary is `value`, as it is written."""
    return f'{{"document": {document}, "summary": {value}}}\n'.encode()


def dialogue(*turns: object) -> bytes:
    return json.dumps({"messages": list(turns)}).encode() + b"\n"


def refused(path: Path, columns: Columns = SUMMARIES, shown: str | None = None) -> list:
    """The problems that reading the whole file raises."""
    with pytest.raises(RequestError) as failure:
        list(read_split(path, shown or path.name, columns))
    return list(failure.value.problems)


# file name, content, line (0: about the whole file), words of the message
BAD = {
    "empty": ("a.jsonl", b"", 0, "holds no rows"),
    "only a BOM": ("a.jsonl", b"\xef\xbb\xbf", 0, "holds no rows"),
    "blank lines": ("a.jsonl", b"\n \r\n\n", 0, "holds no rows"),
    "latin-1": ("a.jsonl", GOOD + '{"document": "é", "summary": "s"}\n'.encode("latin-1"), 2, "0xe9 is not UTF-8"),
    "utf-16": ("a.jsonl", GOOD.decode().encode("utf-16"), 1, "UTF-16"),
    "NUL byte": ("a.jsonl", GOOD + b'{"document": "\0"}\n', 2, "a NUL byte"),
    "NUL escape": ("a.jsonl", GOOD + summary(r'"a\u0000b"'), 2, "`summary` holds a NUL character"),
    "lone surrogate": ("a.jsonl", GOOD + GOOD + summary(r'"\ud800"'), 3, "`summary` holds half of a surrogate pair"),
    "surrogate in a list": ("a.jsonl", summary(r'["ok", "\udc00"]'), 1, "half of a surrogate pair"),
    "surrogate as a key": ("a.jsonl", GOOD + rb'{"\ud83d": 1}', 2, r"`\ud83d` holds half"),
    "null": ("a.jsonl", GOOD + summary("null"), 2, "field `summary` is null; expected text"),
    "number": ("a.jsonl", GOOD + summary('"s"', "17"), 2, "field `document` is a number; expected text"),
    "true": ("a.jsonl", GOOD + summary('"s"', "true"), 2, "field `document` is true or false; expected text"),
    "blank": ("a.jsonl", GOOD + summary(r'" \t"'), 2, "field `summary` is blank; expected text"),
    "nested": ("a.jsonl", GOOD + summary('{"text": "s"}'), 2, "field `summary` is an object; expected text"),
    "empty list": ("a.jsonl", GOOD + summary("[]"), 2, "field `summary` is an empty list"),
    "null in a list": ("a.jsonl", summary('["s", null]'), 1, "field `summary` holds null at place 2"),
    "late missing column": (
        "a.jsonl",
        GOOD * 6 + b'{"document": "d"}\n',
        7,
        "field `summary` is missing; expected text",
    ),
    "missing column": (
        "a.jsonl",
        b'{"document": "d", "id": 1}\n' * 9,
        1,
        "no column `summary`; it has `document`, `id`",
    ),
    "array line": ("a.jsonl", GOOD + b'["d", "s"]\n', 2, "the row is a list; expected one JSON object per line"),
    "array file": ("a.jsonl", b'[\n{"document": "d", "summary": "s"}\n]\n', 1, "is a list; expected one JSON object"),
    "text line": ("a.jsonl", GOOD + b'"just text"\n', 2, "the row is text; expected one JSON object per line"),
    "truncated": ("a.jsonl", GOOD + b'{"document": "d", "summ', 2, "broken JSON: unterminated string"),
    "single quotes": ("a.jsonl", GOOD + b"{'document': 'd'}\n", 2, "broken JSON"),
    "two objects": ("a.jsonl", GOOD.strip() + GOOD, 1, "broken JSON: extra data"),
    "not a number": ("a.jsonl", GOOD + summary("NaN"), 2, "`NaN` is not valid JSON"),
    "key twice": ("a.jsonl", GOOD + b'{"summary": "a", "summary": "b"}\n', 2, "the key `summary` occurs twice"),
    "endless number": ("a.jsonl", GOOD + summary("1" * 5000), 2, "a number has too many digits"),
    "bottomless": ("a.jsonl", GOOD + summary("[" * 100_000), 2, "nested too deeply"),
    "huge line": ("a.jsonl", GOOD + b"x" * (formats.MAX_LINE_BYTES + 1) + b"\n" + GOOD, 2, "longer than 64 MB"),
    "array of texts": ("a.json", b'[\n{"document": "d", "summary": "s"},\n\n"text"]', 4, "the row is text"),
    "array with null": (
        "a.json",
        b'[{"document": "d",\n"summary": "s"},\n{"document": null}]',
        3,
        "`document` is null",
    ),
    "array cut off": ("a.json", b'[{"document": "d", "summary": "s"},\n', 2, "broken JSON"),
    "array comma": ("a.json", b'[{"document": "d", "summary": "s"}\n{}]', 2, "expected `,` or `]`"),
    "array and more": ("a.json", b'[{"document": "d", "summary": "s"}]\n{}', 2, "after the end of the array"),
    "array twice a key": ("a.json", b'[{"document": "d", "summary": "s"},\n{"a": 1, "a": 2}]', 2, "occurs twice"),
    "array latin-1": ("a.json", b'[{"document": "d"},\n{"summary": "\xe9"}]', 2, "0xe9 is not UTF-8"),
    "no array": ("a.json", b'"text"', 1, "expected an array of objects"),
    "header only": ("a.csv", b"document,summary\n", 0, "holds no rows"),
    "short row": ("a.csv", b"document,summary\nd,s\nd\n", 3, "the row has 1 fields; expected 2"),
    "long row": ("a.csv", b'document,summary\n"d\nd",s\nd,s,t\n', 4, "the row has 3 fields; expected 2"),
    "open quote": ("a.csv", b'document,summary\nd,s\nd,"s\nd,s\n', 3, "a quote opened in this row is never closed"),
    "text after a quote": ("a.csv", b'document,summary\nd,"s"s\n', 2, "broken row"),
    "empty cell": ("a.csv", b"document,summary\nd,s\n,s\n", 3, "field `document` is blank; expected text"),
    "csv latin-1": ("a.csv", b"document,summary\nd,s\n\nd,\xe9\n", 4, "0xe9 is not UTF-8"),
    "header twice": ("a.csv", b"document,summary,summary\nd,s,s\n", 1, "the column `summary` occurs twice"),
    "wrong separator": ("a.csv", b"document;summary\nd;s\n", 2, "no column `document`; it has `document;summary`"),
    "tsv": ("a.tsv", b"document\tsummary\nd,s\n", 2, "the row has 1 fields; expected 2"),
    "no Parquet": ("a.parquet", b"PAR1 but not really PAR1", 0, "not a readable Parquet file"),
}


@pytest.mark.parametrize(("name", "content", "line", "words"), BAD.values(), ids=BAD)
def test_f13_bad_data(tmp_path, name, content, line, words):
    (tmp_path / name).write_bytes(content)
    (problem,) = refused(tmp_path / name)
    assert (problem.file, problem.line) == (name, line)
    assert words in problem.message
    assert "\n" not in problem.message
    assert str(problem).encode()  # can be printed, whatever the data held


BAD_MESSAGES = {
    "text": ({"messages": "Hi"}, "is text; expected a list of messages"),
    "empty": ({"messages": []}, "is an empty list"),
    "no object": ({"messages": [ASK, "Hello"]}, "holds text as message 2"),
    "tool role": ({"messages": [ASK, {"role": "tool", "content": "x"}]}, "has role `tool` in message 2"),
    "no role": ({"messages": [{"content": "x"}]}, "has no role in message 1"),
    "null content": ({"messages": [ASK, {"role": "assistant", "content": None}]}, "null as the `content` of message 2"),
    "blank value": ({"messages": [{"from": "human", "value": " "}]}, "blank as the `value` of message 1"),
    "starts with the answer": ({"messages": [ANSWER, ASK]}, "`assistant` in message 1; expected `user`"),
    "two in a row": ({"messages": [ASK, ANSWER, ANSWER]}, "`assistant` in message 3; expected `user`"),
    "late system": ({"messages": [ASK, ANSWER, {"role": "system", "content": "x"}]}, "`system` in message 3"),
    "no answer": ({"messages": [{"role": "system", "content": "Be kind."}, ASK]}, "holds no answer"),
}


@pytest.mark.parametrize(("row", "words"), BAD_MESSAGES.values(), ids=BAD_MESSAGES)
def test_f13_bad_messages(tmp_path, row, words):
    (tmp_path / "a.jsonl").write_bytes(dialogue(ASK, ANSWER) + json.dumps(row).encode())
    (problem,) = refused(tmp_path / "a.jsonl", DIALOGUES)
    assert problem.line == 2
    assert problem.message.startswith("field `messages` ")
    assert words in problem.message


def test_f13_first_five_then_a_count(tmp_path):
    rows = [GOOD if n % 2 else summary("null") for n in range(200)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(rows))
    problems = refused(tmp_path / "a.jsonl")
    assert [problem.line for problem in problems] == [1, 3, 5, 7, 9, 0]
    assert problems[-1].message == "95 more rows are malformed, 100 in all"


def test_f13_parquet_says_that_it_counts_rows(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"document": ["d"] * 999, "summary": ["s"] * 700 + [None] + ["s"] * 298}), tmp_path / "a.parquet"
    )
    (problem,) = refused(tmp_path / "a.parquet")
    assert problem.line == 701
    assert "number of the row" in str(problem)


GOOD_ODD = {
    "BOM": ("a.jsonl", b"\xef\xbb\xbf" + GOOD, [("d", ["s"], 1)]),
    "CRLF": ("a.jsonl", GOOD.replace(b"\n", b"\r\n") * 2, [("d", ["s"], 1), ("d", ["s"], 2)]),
    "no last line end": ("a.ndjson", GOOD + GOOD.strip(), [("d", ["s"], 1), ("d", ["s"], 2)]),
    "blank lines": ("a.jsonl", b"\n" + GOOD + b"  \n" + GOOD, [("d", ["s"], 2), ("d", ["s"], 4)]),
    "line separator in text": ("a.jsonl", summary('"a\u2028b\x85c"'), [("d", ["a\u2028b\x85c"], 1)]),
    "surrogate pair": ("a.jsonl", summary(r'"\ud83d\ude00"'), [("d", ["😀"], 1)]),
    "escaped backslash": ("a.jsonl", summary(r'"\\u0000 \\ud800"'), [("d", [r"\u0000 \ud800"], 1)]),
    "deep in another column": ("a.jsonl", GOOD[:-2] + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}", [("d", ["s"], 1)]),
    "several references": ("a.jsonl", summary('["a", "b"]'), [("d", ["a", "b"], 1)]),
    "references instead": ("a.jsonl", b'{"document": "d", "references": ["a", "b"]}', [("d", ["a", "b"], 1)]),
    "references besides": (
        "a.jsonl",
        b'{"document": "d", "summary": "s", "references": ["s", "t"]}',
        [("d", ["s", "t"], 1)],
    ),
    "array over lines": (
        "a.json",
        b'\n[\n {"document": "d",\n  "summary": "s"},\n {"document": "e", "summary": "t"}\n]\n',
        [("d", ["s"], 3), ("e", ["t"], 5)],
    ),
    "JSON lines named .json": ("a.json", GOOD * 2, [("d", ["s"], 1), ("d", ["s"], 2)]),
    "capital extension": ("A.JSONL", GOOD, [("d", ["s"], 1)]),
    "quoted line break": ("a.csv", b'document,summary\r\n"d\r\ne","s, ""t"""\r\nf,u\r\n', [
        ("d\r\ne", ['s, "t"'], 2),
        ("f", ["u"], 4),
    ]),
    "csv with BOM": ("a.csv", b"\xef\xbb\xbfdocument,summary\nd,s\n\n", [("d", ["s"], 2)]),
    "tsv": ("a.tsv", b"document\tsummary\nd, e\ts\n", [("d, e", ["s"], 2)]),
    "long csv field": ("a.csv", b"document,summary\nd," + b"s" * 200_000, [("d", ["s" * 200_000], 2)]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "expected"), GOOD_ODD.values(), ids=GOOD_ODD)
def test_odd_but_good_files(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    rows = list(read_split(tmp_path / name, name, SUMMARIES))
    assert [(row.values["document"], row.values["summary"], row.line) for row in rows] == expected


def test_formats_agree_with_files_written_by_pandas(tmp_path):
    import pandas as pd

    written = [
        {"document": 'He said: "no",\nand left.', "summary": "He left."},
        {"document": "  中文，逗号\tTab 😀", "summary": "短"},
        {"document": "'NULL', NA, nan", "summary": "null"},
        {"document": "a\r\nb", "summary": "1,5"},
    ] * 300
    frame = pd.DataFrame(written)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True, force_ascii=False)
    frame.to_json(tmp_path / "a.json", orient="records", indent=2)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=500)
    for name in ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet"):
        rows = list(read_rows(tmp_path / name, name))
        assert [row.values for row in rows] == written, name
        assert [row.id for row in rows] == [Row(values, "", 0).id for values in written]


def test_row_id_is_the_hash_of_canonical_json():
    row = Row({"b": ["é", None], "a": 1}, "a.jsonl", 1)
    assert row.id == hashlib.sha256('{"a":1,"b":["é",null]}'.encode()).hexdigest()[:16]


def test_labels_and_foreign_messages_are_normalized(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "t", "label": 3}\n{"text": "t", "label": true}\n{"text": "t", "label": " x "}'
    )
    assert [row.values["label"] for row in read_split(tmp_path / "a.jsonl", "a.jsonl", LABELS)] == ["3", "true", "x"]
    shared = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (tmp_path / "b.jsonl").write_bytes(dialogue(*shared))
    (row,) = read_split(tmp_path / "b.jsonl", "b.jsonl", DIALOGUES)
    assert row.values["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]


def test_f13_label_with_a_fraction(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "t", "label": 1.0}')
    (problem,) = refused(tmp_path / "a.jsonl", LABELS)
    assert "number with a fraction; expected a label" in problem.message


@pytest.mark.parametrize(
    ("row", "suggested"),
    [
        ({"document": "d", "target": "s"}, "`columns: {summary: target}`"),
        ({"document": "d", "highlights": "s", "id": "7"}, "`columns: {summary: highlights}`"),
        ({"document": "d", "Summary": "s", "target": "t"}, "`columns: {summary: Summary}`"),
        ({"document": "d", "gist": "s", "id": 7}, "`columns: {summary: gist}`"),
        ({"document": "d", "gist": "s", "topic": "t"}, "map one of `gist`, `topic`"),
    ],
)
def test_f14_column_suggestion(tmp_path, row, suggested):
    (tmp_path / "a.jsonl").write_text((json.dumps(row) + "\n") * 3)
    (problem,) = refused(tmp_path / "a.jsonl")
    assert "no column `summary`" in problem.message
    assert all(f"`{name}`" in problem.message for name in row)
    assert suggested in problem.help


def test_f14_mapping(tmp_path):
    (tmp_path / "a.csv").write_text("article,highlights,id\nd,s,1\n")
    mapped = Columns(SUMMARIES.holds, {"document": "article", "summary": "highlights"})
    (row,) = read_split(tmp_path / "a.csv", "a.csv", mapped)
    assert row.values == {"document": "d", "summary": ["s"]}
    wrong = Columns(SUMMARIES.holds, {"document": "article", "summary": "highlight"})
    (problem,) = refused(tmp_path / "a.csv", wrong)
    assert problem.path == "task.columns.summary"
    assert "no column `highlight`" in problem.message
    source = Source(files={"train": tmp_path / "a.csv"}, shown={"train": "a.csv"})
    with pytest.raises(RequestError, match="the task has no column `sumary`") as failure:
        open_splits(source, Columns(SUMMARIES.holds, {"sumary": "highlights"}), ("train",))
    assert failure.value.problems[0].help == "did you mean `summary`?"


def test_f22_missing_files_and_folders(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(GOOD)
    assert refused(tmp_path / "trian.jsonl", shown="d/trian.jsonl")[0].help == "did you mean `d/train.jsonl`?"
    assert "`no/such` does not exist" in refused(tmp_path / "no/such/a.jsonl", shown="no/such/a.jsonl")[0].help
    assert "is a folder" in refused(tmp_path)[0].message
    assert "name too long" in refused(tmp_path / ("n" * 5000 + ".jsonl"))[0].message.lower()
    assert "from this machine only" in refused(Path("https://host/a.jsonl"), shown="https://host/a.jsonl")[0].message
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert "`.zip` is not a data format" in refused(tmp_path / "a.zip")[0].message
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "not a regular file" in refused(tmp_path / "pipe.jsonl")[0].message


@pytest.mark.parametrize(
    "name", ["with space", "ünïcode 数据", "quote'\"", "new\nline", "-dash", "percent%20", "a" * 200]
)
def test_f22_odd_paths(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / f"{name}.jsonl").write_bytes(GOOD + summary("null"))
    (problem,) = refused(folder / f"{name}.jsonl", shown=f"{name}/{name}.jsonl")
    assert (problem.file, problem.line) == (f"{name}/{name}.jsonl", 2)


def test_x10_links_may_not_lead_out(tmp_path):
    inside, outside = tmp_path / "data", tmp_path / "other"
    inside.mkdir(), outside.mkdir()
    (outside / "secret.jsonl").write_bytes(GOOD)
    (inside / "real.jsonl").write_bytes(GOOD)
    (inside / "out.jsonl").symlink_to(outside / "secret.jsonl")
    (inside / "relative.jsonl").symlink_to("../other/secret.jsonl")
    (inside / "alias.jsonl").symlink_to("real.jsonl")
    (inside / "dangling.jsonl").symlink_to("gone.jsonl")
    (inside / "folder.jsonl").symlink_to(outside)
    (tmp_path / "named").symlink_to(inside)
    for name in ("out.jsonl", "relative.jsonl"):
        assert "leads out of its folder" in refused(inside / name)[0].message
    assert "does not exist" in refused(inside / "dangling.jsonl")[0].help
    assert "is a folder" in refused(inside / "folder.jsonl")[0].message
    assert len(list(read_split(inside / "alias.jsonl", "alias.jsonl", SUMMARIES))) == 1
    assert len(list(read_split(tmp_path / "named/real.jsonl", "real.jsonl", SUMMARIES))) == 1


def test_data_modules_are_light():
    probe = "import sys, inlay.tuner.data.sources; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "datasets", "pyarrow", "pandas", "numpy", "huggingface_hub"} & set(loaded)
