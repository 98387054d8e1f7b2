"""Runs to talk to, and what plain transformers and PEFT answer on the same files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import tiny_runs
import yaml
from tiny_runs import inlay

# Enough for the adapter to matter, and for labels to differ from row to row.
LEARNS = {
    "dialogue": {"max_steps": 6, "learning_rate": 0.05},
    "summarization": {"max_steps": 6, "learning_rate": 0.05},
    "classification": {"max_steps": 60, "learning_rate": 0.01},
}
LENGTHY = " ".join(["The engine stops when the water is cold."] * 60)


def made(folder: Path, model: Path, *tasks: str, method: str = "lora", bits: int = 32, **options: object) -> Path:
    """A folder with the base, the rows, and a finished run `<task>` of each task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_runs.world(folder, model)
        for task in tasks:
            path = tiny_runs.recipe(folder, method, task, bits=bits)
            content = yaml.safe_load(path.read_text())
            content["train"] |= LEARNS[task]
            content["eval"] |= options
            path.write_text(yaml.safe_dump(content))
            code, _, err = inlay("run", path.name, "--output", task)
            assert code == 0, err
    return folder


def predictions(run: Path) -> list[dict]:
    """The lines of predictions.jsonl."""
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]


def by_peft(base: Path, adapter: Path | None, prompt: str, tokens: int = 6, **options: object) -> str:
    """What transformers and PEFT answer to a prompt as it stands: they read the files themselves."""
    return continued_by_peft(base, adapter, prompt, tokens, **options).strip()


def continued_by_peft(base: Path, adapter: Path | None, prompt: str, tokens: int = 6, **options: object) -> str:
    """As `by_peft`, outer blanks and all, and marks in the prompt are marks."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, **options)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        written = model.eval().generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=1
        )
    return tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


def piped(monkeypatch: pytest.MonkeyPatch, lines: list[str], *arguments: object) -> tuple[int, list[str], str]:
    """`inlay chat` with these lines on stdin: exit code, the lines of stdout, stderr."""
    text = "".join(f"{line}\n" for line in lines).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text), encoding="ascii"))
    code, out, err = inlay("chat", *arguments)
    assert out.endswith("\n") or not out
    return code, out.split("\n")[:-1], err
