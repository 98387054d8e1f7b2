"""Forecasts against what was measured: memory and time of ten runs, each forecast before it began.

    python benchmarks/forecasts.py

Each recipe is examined by `inlay check` and then run, in a process of its own. Writes benchmarks/results/forecasts.json
and prints a table. Exit code 1 where fewer than nine of ten forecasts hold what was measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "forecasts.json"
SMALL = ["task.data.max_rows.test=60", "train.max_steps=30"]
RUNS = (
    ("quickstart", []),
    ("quickstart", ["train.micro_batch_size=16"]),
    ("quickstart", ["adapter={method: dora, r: 8}", "train.learning_rate=2e-3"]),
    ("quickstart", ["base.quantization.bits=32"]),
    ("summarization-embedded-prefix", []),
    ("summarization-embedded-bottleneck", []),
    ("summarization-embedded-full", []),
    ("dialogue-embedded-lora", []),
    ("classification-embedded-lora", []),
    ("language_modeling-embedded-lora", ["adapter={method: ia3}", "train.learning_rate=1e-2"]),
)


def main() -> None:
    found = []
    for name, overrides in RUNS:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name, *SMALL, *overrides], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        one = found[-1]
        print(
            f"{one['name']:60}  memory {one['memory_gb'][1]:.2f} in {one['memory_gb'][0]:.2f}-{one['memory_gb'][2]:.2f} GB"
            f"   time {one['seconds'][1]:.0f} in {one['seconds'][0]:.0f}-{one['seconds'][2]:.0f} s",
            flush=True,
        )
    held = {key: sum(one[key][0] <= one[key][1] <= one[key][2] for one in found) for key in ("memory_gb", "seconds")}
    RESULT.write_text(json.dumps({"held": held, "of": len(found), "runs": found}, indent=1) + "\n", encoding="utf-8")
    print(f"memory held {held['memory_gb']} of {len(found)}, time {held['seconds']} of {len(found)}")
    sys.exit(0 if min(held.values()) >= 0.9 * len(found) else 1)


def one(name: str, overrides: list[str]) -> None:
    """Forecasts a run, makes it, and prints (low, measured, high) of memory and time."""
    import inlay
    from inlay.tuner.check import forecast_run

    recipe = inlay.load_recipe(name, overrides)
    predicted, seconds = forecast_run(recipe)
    with tempfile.TemporaryDirectory() as folder:
        record = json.loads((inlay.run(recipe, output=f"{folder}/run") / "run.json").read_text(encoding="utf-8"))
    low, high = predicted.peak_bytes
    chosen = [text for text in overrides if text not in SMALL]
    print(
        json.dumps(
            {
                "name": " ".join([name, *chosen]),
                "memory_gb": [low / 1e9, record["train"]["peak_bytes"] / 1e9, high / 1e9],
                "seconds": [seconds[0], record["seconds"], seconds[1]],
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3:])
    else:
        main()
