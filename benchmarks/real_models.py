"""Trains three adapter methods on a real 4-bit base and three real tasks, and writes what was measured.

    python benchmarks/real_models.py --models DIR --data DIR

DIR/tinytalk-3m is the model; DIR/dailydialog, DIR/dialogsum and DIR/sst2 hold JSONL splits. A finished run is not done
again, so the script goes on where it was stopped. Results: benchmarks/results/real_models.json; the README's table is
made of it by benchmarks/tables.py. The learning rates were set beforehand, one a method, and tuned on nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import inlay

HERE = Path(__file__).resolve().parent
MODEL = "tinytalk-3m"
SETS = {
    "dialogue": ("dailydialog", "train.jsonl", "test.jsonl"),
    "summarization": ("dialogsum", "train.jsonl", "validation.jsonl"),
    "classification": ("sst2", "train.jsonl", "test.jsonl"),
}
LEARNING_RATES = {"lora": 3e-3, "prefix": 1e-2, "bottleneck": 3e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder that holds tinytalk-3m")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    options = parser.parse_args()
    records = []
    for task, (name, train, test) in SETS.items():
        for method, rate in LEARNING_RATES.items():
            folder = inlay.run(
                HERE / "real" / f"{task}.yaml",
                overrides=[
                    f"name={name}-{MODEL}-{method}",
                    f"base.model={(options.models / MODEL).resolve()}",
                    f"task.data.train={(options.data / name / train).resolve()}",
                    f"task.data.test={(options.data / name / test).resolve()}",
                    f"adapter.method={method}",
                    f"train.learning_rate={rate}",
                ],
            )
            records.append(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    out = HERE / "results" / "real_models.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
