"""The embedded base and task data: they are what their scripts write, and the splits do not leak."""

import json
import random
from pathlib import Path

import pytest

EMBEDDED = Path(__file__).resolve().parent.parent / "recipes" / "embedded"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the scripts be imported by plain name, as they import each other."""
    monkeypatch.syspath_prepend(str(EMBEDDED))


@pytest.mark.parametrize("task", ["summarization", "dialogue", "classification", "text_to_text", "language_modeling"])
def test_rows_are_what_the_script_writes(scripts: None, task: str) -> None:
    from tasks import SEED, TASKS
    from world import World

    for split in ("train", "validation", "test"):
        lines = (EMBEDDED / "data" / f"{task}-{split}.jsonl").read_text(encoding="utf-8").splitlines()
        for index in (0, 1, len(lines) - 1):
            row = TASKS[task](World(random.Random(f"{SEED}:{task}:{split}:{index}"), split))
            assert json.loads(lines[index]) == row


def test_splits_do_not_leak(scripts: None, capsys: pytest.CaptureFixture[str]) -> None:
    from overlap import main

    assert main() == 0, capsys.readouterr().out


def test_pretraining_text_keeps_away_from_the_tasks(scripts: None) -> None:
    from itertools import islice

    from corpus import documents
    from overlap import entities, rows

    texts = [{"text": text} for text in islice(documents(0, 50_000), 300)]
    assert not any("Summary:" in row["text"] or "user:" in row["text"] for row in texts)
    told, asked = entities(texts), entities(rows("summarization", "test"))
    # Order numbers are left out: a misheard number of the pretraining text may be any number.
    shared = {kind: told[kind] & asked[kind] for kind in told if kind != "orders"}
    assert not any(shared.values()), shared


def test_dialogues_alternate(scripts: None) -> None:
    from overlap import rows

    for row in rows("dialogue", "train"):
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert 2 <= len(roles) // 2 <= 4


@pytest.mark.skipif(not (EMBEDDED / "base" / "model.safetensors").exists(), reason="the base is not in this checkout")
def test_base_is_small_and_its_tokenizer_keeps_any_text() -> None:
    from transformers import AutoTokenizer

    assert (EMBEDDED / "base" / "model.safetensors").stat().st_size <= 15_000_000
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / "base")
    text = "Ms Corwin, 48213: naïve – 日本語 \U0001f642\r\n\ttab  two  spaces , don't."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|pad|>")
    assert [tokenizer.decode(token) for token in tokenizer("48213")["input_ids"]] == list("48213")
