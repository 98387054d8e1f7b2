"""A folder with a tiny base, thirty rows for each task and a recipe, and the command line called in it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import yaml

from inlay.tuner import cli

OPTIONS = {"lora": {"r": 4}, "prefix": {"num_virtual_tokens": 4}, "bottleneck": {"bottleneck_size": 8}}
OPTIONS["mam"] = OPTIONS["prefix"] | OPTIONS["bottleneck"]
TOPICS = ("sport", "news", "weather")


def world(folder: Path, model: Path) -> Path:
    """Puts the base and the rows into `folder`."""
    shutil.copytree(model, folder / "base")
    for task in ("classification", "summarization", "dialogue"):
        rows = [json.dumps(row(task, i), ensure_ascii=False) for i in range(30)]
        (folder / f"{task}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (folder / f"{task}-test.jsonl").write_text(
            "".join(json.dumps(row(task, i), ensure_ascii=False) + "\n" for i in range(30, 36)), encoding="utf-8"
        )
    return folder


def row(task: str, i: int) -> dict[str, object]:
    """Row `i` of the task."""
    topic, more = TOPICS[i % 3], " It rains." * (i % 5)
    if task == "classification":
        return {"text": f"The {topic} of day {i} is good.{more}", "label": topic}
    if task == "summarization":
        return {
            "document": f"Anna writes that order {i} has not arrived. {topic}.{more}",
            "summary": f"order {i}: {topic}",
        }
    said = [("user", f"How is the {topic} {i}?{more}"), ("assistant", f"It is good, {i}.")]
    return {"messages": [{"role": role, "content": content} for role, content in said]}


def recipe(folder: Path, method: str, task: str, *, bits: int = 4, **adapter: object) -> Path:
    """Writes a recipe of two steps."""
    content = {
        "name": f"{task}-{method}",
        "base": {"model": "./base", "quantization": {"bits": bits}},
        "adapter": {"method": method, **OPTIONS.get(method, {}), **adapter},
        "task": {"type": task, "data": {"train": f"{task}.jsonl", "test": f"{task}-test.jsonl"}},
        "train": {"max_steps": 2, "micro_batch_size": 4, "learning_rate": 0.01, "log_steps": 1},
        "eval": {"decoding": {"max_new_tokens": 6}, "batch_size": 4},
    }
    path = folder / f"{task}-{method}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def inlay(*arguments: object) -> tuple[int, str, str]:
    """Calls the command line in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    code = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    return code, out.getvalue(), err.getvalue()


def record(run: Path) -> dict:
    """What run.json says."""
    return json.loads((run / "run.json").read_text())


def newest(folder: Path, start: str) -> Path:
    """The newest run whose name starts so."""
    return max((folder / "runs").glob(f"{start}*"), key=lambda path: path.stat().st_mtime_ns)
