"""Trains three adapter methods on two real 4-bit bases and seven real data sets, and writes what was measured.

    python benchmarks/real_models.py --models DIR --data DIR

The models are DIR/tinytalk-3m and DIR/stories260k; DIR/dailydialog, DIR/sst2 and so on hold JSONL splits. A finished
run is not done again, so the script goes on where it was stopped. Results: benchmarks/results/real_models.json; the
README's table is made of it by benchmarks/tables.py. The learning rates were set beforehand, one a method, and tuned on
nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import inlay

HERE = Path(__file__).resolve().parent
MODELS = ("tinytalk-3m", "stories260k")
# Test splits that are not given are replaced by validation.
SETS = {
    "dailydialog": "test",
    "dialogsum": "validation",
    "scitldr": "test",
    "e2e_nlg": "test",
    "sst2": "test",
    "trec": "test",
    "csl_cls_zh": "test",
}
LEARNING_RATES = {"lora": 3e-3, "prefix": 1e-2, "bottleneck": 3e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder that holds the models")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--only", choices=MODELS, help="run one model's share, and write no results")
    options = parser.parse_args()
    records = []
    for (name, split), model, (method, rate) in itertools.product(
        SETS.items(), [options.only] if options.only else MODELS, LEARNING_RATES.items()
    ):
        folder = inlay.run(
            HERE / "real" / f"{name}.yaml",
            overrides=[
                f"name={name}-{model}-{method}",
                f"base.model={(options.models / model).resolve()}",
                f"task.data.train={(options.data / name / 'train.jsonl').resolve()}",
                f"task.data.test={(options.data / name / f'{split}.jsonl').resolve()}",
                f"adapter.method={method}",
                f"train.learning_rate={rate}",
            ],
        )
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        records.append({"set": name, "model": model, "record": {**record, "forecast": None}})
    if options.only:
        return
    out = HERE / "results" / "real_models.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
