"""Data sets of the hub: found by file names in a cache that the test builds, and fetched from a hub on loopback."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import hub_cache
import pytest
from hub_cache import COMMIT

from inlay.tuner.data.hub import choose
from inlay.tuner.problems import RequestError

# Runs in its own process: the hub's client reads its settings once, when it is imported.
PROBE = """
import json, sys
from inlay.tuner.data.columns import Columns
from inlay.tuner.data.sources import Source, open_splits
from inlay.tuner.problems import Failure

def answer(source, wanted):
    try:
        splits = open_splits(Source(**source), Columns({"text": "text", "label": "label"}), wanted)
    except Failure as failure:
        return {"exit_code": failure.exit_code, "text": str(failure)}
    rows = {name: [(row.values["text"], row.file, row.line) for row in rows] for name, rows in splits.rows.items()}
    return {"rows": rows, "inputs": [each.model_dump() for each in splits.inputs], "commit": splits.commit}

sources, wanted = json.loads(sys.argv[1])
print("ANSWERS" + json.dumps([answer(source, wanted) for source in sources]))
"""


def rows(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text, "label": "x"}) + "\n" for text in texts).encode()


def ask_all(cache: Path, sources: list[dict], wanted: tuple[str, ...] = ("train",), endpoint: str = "") -> list[dict]:
    """What `open_splits` answers in a process whose hub cache is `cache`, offline where no endpoint is given."""
    settings = {"HF_HUB_CACHE": str(cache), "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    settings |= {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"} if endpoint else {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", PROBE, json.dumps([sources, wanted])]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings}, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout.split("ANSWERS")[1])


def ask(cache: Path, source: dict, wanted: tuple[str, ...] = ("train",), endpoint: str = "") -> dict:
    return ask_all(cache, [source], wanted, endpoint)[0]


def assert_refused(answer: dict, exit_code: int, *words: str) -> None:
    assert answer["text"].startswith("error: ")
    assert answer["exit_code"] == exit_code, answer["text"]
    assert all(each in answer["text"] for each in words), answer["text"]


def build_cache(cache: Path, files: dict[str, bytes]) -> Path:
    """A data set `org/name` in the layout of the hub's cache: blobs, and a snapshot of links to them."""
    return hub_cache.repository(cache, "datasets", "org/name", files)


def test_cached_data_set_offline(tmp_path):
    build_cache(
        tmp_path,
        {
            "README.md": b"---\nconfigs: [{data_files: ../../../x.jsonl}]\n---\n",
            "name.py": b"raise SystemExit('code of a data set was run')",
            "data/train-00000-of-00002.jsonl": rows("a", "b"),
            "data/train-00001-of-00002.jsonl": rows("c"),
            "data/dev.csv": b"text,label\nd,x\n",
        },
    )
    answer = ask(tmp_path, {"hub": "org/name"}, ("train", "validation"))
    first = "org/name/data/train-00000-of-00002.jsonl"
    assert answer["rows"] == {
        "train": [["a", first, 1], ["b", first, 2], ["c", "org/name/data/train-00001-of-00002.jsonl", 1]],
        "validation": [["d", "org/name/data/dev.csv", 2]],
    }
    assert answer["commit"] == COMMIT
    assert answer["inputs"][0] == {
        "name": first,
        "sha256": hashlib.sha256(rows("a", "b")).hexdigest(),
        "bytes": len(rows("a", "b")),
    }
    assert ask(tmp_path, {"hub": "org/name", "revision": COMMIT})["commit"] == COMMIT


def test_s37_draw_from_a_cached_data_set(tmp_path):
    build_cache(tmp_path, {"train.jsonl": rows(*"abcdefghij")})
    drawn = ask(tmp_path, {"hub": "org/name", "draw": {"test": 0.5}}, ("train", "test"))["rows"]
    assert all(drawn.values())
    assert sorted(row[0] for part in drawn.values() for row in part) == list("abcdefghij")


def test_offline_mistakes_are_one_line(tmp_path):
    build_cache(tmp_path, {"train.jsonl": rows("a")})
    cases = [
        ({"hub": "org/other"}, 3, "`org/other` is not in the hub's cache, and the network is turned off"),
        ({"hub": "org/name", "revision": "v2"}, 3, "is not in the hub's cache"),
        ({"hub": "org/name", "revision": "../../x"}, 2, "is not a branch, tag or commit"),
        ({"hub": "./local/folder"}, 2, "is not a data set id"),
        ({"hub": "org/name", "config": "en"}, 3, "no data file for the split `train` of the configuration `en`"),
    ]
    for answer, (_, exit_code, words) in zip(ask_all(tmp_path, [case[0] for case in cases]), cases, strict=True):
        assert_refused(answer, exit_code, words)


def test_x10_a_link_out_of_the_cached_data_set_is_refused(tmp_path):
    storage = build_cache(tmp_path, {"test.jsonl": rows("a")})
    (tmp_path / "secret.jsonl").write_bytes(rows("secret"))
    (storage / "snapshots" / COMMIT / "train.jsonl").symlink_to(tmp_path / "secret.jsonl")
    assert_refused(ask(tmp_path, {"hub": "org/name"}), 2, "leads out of its folder")


LAYOUTS = {
    "one file": (["train.jsonl", "test.jsonl", "README.md"], None, ["train.jsonl"]),
    "shards": (
        [f"data/train-{n:05d}-of-00011.parquet" for n in range(11)],
        None,
        [f"data/train-{n:05d}-of-00011.parquet" for n in range(11)],
    ),
    "shards with a hash": (
        ["data/train-00000-of-00002-0123456789abcdef.parquet", "data/train-00001-of-00002-fedcba9876543210.parquet"],
        None,
        ["data/train-00000-of-00002-0123456789abcdef.parquet", "data/train-00001-of-00002-fedcba9876543210.parquet"],
    ),
    "folder": (["train/b.csv", "train/a.csv", "test/a.csv"], None, ["train/a.csv", "train/b.csv"]),
    "converted": (["default/train/0000.parquet", "default/test/0000.parquet"], None, ["default/train/0000.parquet"]),
    "configuration": (["main/train-0.parquet", "socratic/train-0.parquet"], "socratic", ["socratic/train-0.parquet"]),
    "nested": (["data/en/train.csv", "data/de/train.csv"], "de", ["data/de/train.csv"]),
    "path as configuration": (["a/en/train.csv", "b/en/train.csv"], "b/en", ["b/en/train.csv"]),
    "top first": (["train.csv", "small/train.csv"], None, ["train.csv"]),
    "two formats": (["train.csv", "train.parquet"], None, ["train.parquet"]),
    "other spelling": (["training.tsv", "dev.tsv"], None, ["training.tsv"]),
    "two spellings": (["training.tsv", "train.tsv"], None, ["train.tsv"]),
    "whole and parts": (["train-1.csv", "train-2.csv", "train.csv"], None, ["train.csv"]),
    "another split's name in it": (["train_large.csv", "pretrain.csv", "train.csv"], None, ["train.csv"]),
    "no code, no archives": (["train.py", "train.zip", "train.pkl", "train.arrow", "train.json"], None, ["train.json"]),
}


@pytest.mark.parametrize(("held", "config", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_files_of_a_split(held, config, expected):
    assert choose(held, "train", config, "org/name", whole=True) == expected


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (["test.csv", "README.md"], ["no data file for the split `train`", "its data files are `test.csv`"]),
        (["train.zip", "name.py"], ["holds no file that can be read"]),
        (["en/train.csv", "de/train.csv"], ["several folders", "choose one by `config`: `de`, `en`"]),
        (["train-00000-of-00003.csv", "train-00002-of-00003.csv"], ["only 2 of the 3 files"]),
    ],
)
def test_no_files_of_a_split(held, words):
    with pytest.raises(RequestError) as failure:
        choose(held, "train", None, "org/name", whole=True)
    assert all(each in str(failure.value) for each in words)


HELD = {
    "main/train.jsonl": rows("a", "b"),
    "main/test.jsonl": rows("c"),
    "other/train.jsonl": rows("d"),
    "README.md": b"# A card",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as its client asks for: one data set, its tree and its files, and three refusals."""

    requested: ClassVar[list[str]]

    def do_GET(self):
        path = urlsplit(self.path).path
        type(self).requested.append(path)
        refusals = {"missing": (404, "RepoNotFound"), "gated": (403, "GatedRepo"), "broken": (500, "")}
        for name, (status, code) in refusals.items():
            if path.startswith(f"/api/datasets/org/{name}"):
                return self.answer(b"{}", status, {"X-Error-Code": code})
        if "/revision/v9" in path:
            return self.answer(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/datasets/org/name/tree/"):
            return self.answer(json.dumps([self.entry(name) for name in HELD]).encode())
        if path.startswith("/api/datasets/org/name"):
            info = {"id": "org/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in HELD]}
            return self.answer(json.dumps(info).encode())
        name = path.removeprefix(f"/datasets/org/name/resolve/{COMMIT}/")
        content = HELD[name]
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self.answer(content, headers={"ETag": etag, "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET  # noqa: N815 (the names are the server's)

    def entry(self, name: str) -> dict:
        content = HELD[name]
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def answer(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for header, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def hub():
    Hub.requested = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_fetch_takes_only_the_wanted_files_and_then_works_offline(tmp_path, hub):
    source = {"hub": "org/name", "config": "main"}
    answer = ask(tmp_path, source, endpoint=hub)
    assert answer["rows"] == {"train": [["a", "org/name/main/train.jsonl", 1], ["b", "org/name/main/train.jsonl", 2]]}
    assert answer["commit"] == COMMIT
    fetched = {path.split(COMMIT + "/")[1] for path in Hub.requested if "/resolve/" in path}
    assert fetched == {"main/train.jsonl"}
    assert ask(tmp_path, source) == answer
    assert_refused(ask(tmp_path, source, ("test",)), 3, "cached part", "run once with a connection")


def test_refusals_of_the_hub_are_one_line(tmp_path, hub):
    cases = [
        ({"hub": "org/missing"}, 2, "the hub has no data set `org/missing`", "hf auth login"),
        ({"hub": "org/gated"}, 2, "access to the data set `org/gated` is granted on request", "/org/gated"),
        ({"hub": "org/name", "revision": "v9"}, 2, "no revision `v9`", "task.data.revision"),
        ({"hub": "org/name"}, 2, "several folders", "`main`, `other`"),
        ({"hub": "org/broken"}, 3, "`org/broken` is not in the hub's cache, and the hub cannot be reached: "),
    ]
    answers = ask_all(tmp_path, [case[0] for case in cases], endpoint=hub)
    for answer, (_, exit_code, *words) in zip(answers, cases, strict=True):
        assert_refused(answer, exit_code, *words)


def test_x15_no_connection_is_a_matter_of_the_machine(tmp_path):
    assert_refused(ask(tmp_path, {"hub": "org/name"}, endpoint="http://127.0.0.1:9"), 3, "the hub cannot be reached")
    build_cache(tmp_path, {"train.jsonl": rows("a")})
    assert ask(tmp_path, {"hub": "org/name"}, endpoint="http://127.0.0.1:9")["commit"] == COMMIT
