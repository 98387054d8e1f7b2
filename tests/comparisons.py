"""A folder with a tiny base, rows and comparisons of two steps, as the tests of `inlay compare` want them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny_runs
import yaml


def world(folder: Path, model: Path, task: str = "summarization") -> Path:
    """The base, the rows, texts outside the task, and a recipe of two steps that is called `recipe.yaml`."""
    tiny_runs.world(folder, model)
    texts = [json.dumps({"text": f"It rains on day {i}."}) + "\n" for i in range(4)]
    (folder / "outside.jsonl").write_text("".join(texts))
    tiny_runs.recipe(folder, "lora", task).rename(folder / "recipe.yaml")
    return folder


def spec(folder: Path, *rows: dict[str, Any], name: str = "spec", **more: Any) -> Path:
    """Writes a comparison of the rows with two seeds."""
    fixed = {"name": name, "recipe": "recipe.yaml", "seeds": 2, "outside": "outside.jsonl"}
    content = {**fixed, "rows": list(rows), **more}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def row(method: str, *, label: str | None = None, train: dict[str, Any] | None = None, **options: Any) -> dict:
    """One row as a specification holds it."""
    made: dict[str, Any] = {"adapter": {"method": method, **tiny_runs.OPTIONS.get(method, {}), **options}}
    return made | ({"label": label} if label else {}) | ({"train": train} if train else {})


def found(folder: Path) -> dict[str, Any]:
    """What the only comparison.json under `runs/` says."""
    (path,) = (folder / "runs").glob("*/comparison.json")
    return json.loads(path.read_text())


def home(folder: Path) -> Path:
    """The folder of the only comparison."""
    (path,) = (folder / "runs").glob("*/comparison.json")
    return path.parent


def rows_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows by label."""
    return {row["label"]: row for row in record["rows"]}
