"""Compares ten adapter methods on a real 4-bit base and two real data sets, and keeps what was found.

    python benchmarks/compare_real.py --models DIR --data DIR

The model is DIR/tinytalk-3m; DIR/e2e_nlg and DIR/trec hold JSONL splits. What is finished is not done again. Results:
benchmarks/results/compare-*.json and .md; the README's table is made of them by benchmarks/tables.py.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import inlay

HERE = Path(__file__).resolve().parent
MODEL = "tinytalk-3m"
SETS = {"compare-e2e": "e2e_nlg", "compare-trec": "trec"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder that holds the model")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--only", choices=list(SETS), help="one of the two")
    options = parser.parse_args()
    for name in [options.only] if options.only else list(SETS):
        rows = (options.data / SETS[name]).resolve()
        splits = {split: rows / f"{split}.jsonl" for split in ("train", "validation", "test")}
        folder = inlay.compare(
            HERE / "real" / f"{name}.yaml",
            overrides=[
                f"base.model={(options.models / MODEL).resolve()}",
                *(f"task.data.{split}={path}" for split, path in splits.items() if path.is_file()),
            ],
        )
        for suffix in ("json", "md"):
            shutil.copy(folder / f"comparison.{suffix}", HERE / "results" / f"{name}.{suffix}")
        print(HERE / "results" / f"{name}.json")


if __name__ == "__main__":
    main()
