"""The README tells what commands measured: its tables are fresh, and its recipe loads."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from inlay.tuner.recipe import load

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(start: str) -> str:
    return re.search(rf"```\w+\n({re.escape(start)}.*?)```", README, re.DOTALL)[1]


def write(folder: Path, recipe: str) -> Path:
    """The recipe beside the data files that it names."""
    for name in ("train.jsonl", "test.jsonl"):
        (folder / name).touch()
    (folder / "summaries.yaml").write_text(recipe)
    return folder / "summaries.yaml"


def test_tables_are_those_that_the_results_give():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert tables.fill(README) == README
    assert tables.RESULTS.read_text(encoding="utf-8") == tables.results()


def test_recipe_of_the_readme_loads(tmp_path):
    path = write(tmp_path, block("# summaries.yaml"))
    assert load(path).task.columns == {"document": "article"}
