"""A hub cache under the names of real repositories: tiny models of their architectures, and rows under the columns and
file names that the data sets have. Nothing in it was downloaded."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# repository -> (architecture, whether its tokenizer has a chat template)
MODELS = {
    "Qwen/Qwen2.5-0.5B": ("qwen2", False),
    "Qwen/Qwen2.5-0.5B-Instruct": ("qwen2", True),
    "HuggingFaceTB/SmolLM2-135M": ("llama", False),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("llama", True),
    "meta-llama/Llama-3.2-1B-Instruct": ("llama", True),
    "openai-community/gpt2": ("gpt2", False),
    "google-t5/t5-small": ("t5", False),
}
SUBJECTS = ("lamp", "kettle", "radio", "fan", "clock", "oven", "drill", "mower")


def said(i: int) -> str:
    return f"The {SUBJECTS[i % 8]} number {i} is broken again, and day {i * 7 % 31} is too late."


def dialogsum(split: str) -> list[dict]:
    start = {"train": 0, "validation": 100, "test": 200}[split]
    talk = "#Person1#: {}\n#Person2#: I see."
    return [
        {"id": f"{split}_{i}", "dialogue": talk.format(said(i)), "summary": f"It is {i}.", "topic": "t"}
        for i in range(start, start + 40)
    ]


def conversations(start: int) -> list[dict]:
    turns = [("user", "{}"), ("assistant", "I am sorry for {}."), ("user", "Thanks."), ("assistant", "Bye, {}.")]
    return [
        {
            "full_topic": "Home/Things",
            "messages": [{"role": role, "content": text.format(said(i))} for role, text in turns],
        }
        for i in range(start, start + 40)
    ]


def parquet(rows: list[dict]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def comma_separated(rows: list[dict]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def labelled(start: int, text: str, classes: int, label: str = "label") -> list[dict]:
    return [{text: said(i), label: i % classes} for i in range(start, start + 40)]


def german(start: int) -> list[dict]:
    return [{"en": said(i), "de": f"Das Gerät {i} ist kaputt."} for i in range(start, start + 40)]


DATASETS: dict[str, dict[str, bytes]] = {
    "knkarthick/dialogsum": {f"{s}.csv": comma_separated(dialogsum(s)) for s in ("train", "validation", "test")},
    "HuggingFaceTB/smoltalk": {
        "data/all/train-00000-of-00001.parquet": parquet(conversations(500)),
        "data/everyday-conversations/train-00000-of-00001.parquet": parquet(conversations(0)),
        "data/everyday-conversations/test-00000-of-00001.parquet": parquet(conversations(100)),
    },
    "stanfordnlp/sst2": {
        "data/train-00000-of-00001.parquet": parquet(labelled(0, "sentence", 2)),
        "data/validation-00000-of-00001.parquet": parquet(labelled(100, "sentence", 2)),
        "data/test-00000-of-00001.parquet": parquet([{"sentence": said(i), "label": -1} for i in range(200, 220)]),
    },
    "fancyzhx/ag_news": {
        "data/train-00000-of-00001.parquet": parquet(labelled(0, "text", 4)),
        "data/test-00000-of-00001.parquet": parquet(labelled(100, "text", 4)),
    },
    "bentrevett/multi30k": {
        "train.jsonl": lines(german(0)), "val.jsonl": lines(german(100)), "test.jsonl": lines(german(200))
    },
    "roneneldan/TinyStories": {
        "data/train-00000-of-00001-0123456789abcdef.parquet": parquet([{"text": said(i) * 3} for i in range(40)]),
        "data/validation-00000-of-00001-fedcba9876543210.parquet": parquet([{"text": said(i)} for i in range(90, 130)]),
    },
}  # fmt: skip


def build(cache: Path) -> None:
    """Writes every repository above to the cache."""
    for name, files in DATASETS.items():
        repository(cache, "datasets", name, files)
    for name, (shape, chat) in MODELS.items():
        made = cache / "made" / name
        template = tiny.CHATML if chat else None
        tiny.save(made, shape, tokens=tiny.tokenizer(template, appends_eos=shape == "t5"))
        if shape in ("llama", "qwen2"):  # rotary positions: any context will do
            config = json.loads((made / "config.json").read_text(encoding="utf-8"))
            (made / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}), encoding="utf-8")
        repository(cache, "models", name, {path.name: path.read_bytes() for path in made.iterdir()})


def repository(cache: Path, kind: str, name: str, files: dict[str, bytes]) -> Path:
    """One repository in the layout of the hub's cache: blobs, and a snapshot of links to them. Returns its folder."""
    storage = cache / f"{kind}--{name.replace('/', '--')}"
    (storage / "refs").mkdir(parents=True)
    (storage / "refs" / "main").write_text(COMMIT)
    (storage / "blobs").mkdir()
    for inner, content in files.items():
        blob = storage / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        link = storage / "snapshots" / COMMIT / inner
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return storage
