"""Forecasts against what was measured: memory and time of ten runs, each forecast before it began.

    python benchmarks/forecasts.py

Of each recipe, a process forecasts the time as `inlay check` does, and another runs it, which forecasts the memory
before it begins. Writes benchmarks/results/forecasts.json
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
    for name, chosen in RUNS:
        overrides = [*SMALL, *chosen]
        low, high = map(float, python(__file__, "--time", name, *overrides).split()[-2:])
        with tempfile.TemporaryDirectory() as folder:
            sets = [word for override in overrides for word in ("--set", override)]
            python("-m", "inlay.tuner", "run", name, *sets, "--output", f"{folder}/run")
            record = json.loads(Path(folder, "run", "run.json").read_text(encoding="utf-8"))
        least, most = record["forecast"]["peak_bytes"]
        one = {
            "name": " ".join([name, *chosen]),
            "memory_gb": [least / 1e9, record["train"]["peak_bytes"] / 1e9, most / 1e9],
            "seconds": [low, record["seconds"], high],
        }
        memory, seconds = one["memory_gb"], one["seconds"]
        print(
            f"{one['name']:72}  memory {memory[1]:.2f} in {memory[0]:.2f}-{memory[2]:.2f} GB   "
            f"time {seconds[1]:.0f} in {seconds[0]:.0f}-{seconds[2]:.0f} s",
            flush=True,
        )
        found.append(one)
    held = {key: sum(one[key][0] <= one[key][1] <= one[key][2] for one in found) for key in ("memory_gb", "seconds")}
    RESULT.write_text(json.dumps({"held": held, "of": len(found), "runs": found}, indent=1) + "\n", encoding="utf-8")
    print(f"memory held {held['memory_gb']} of {len(found)}, time {held['seconds']} of {len(found)}")
    sys.exit(0 if min(held.values()) >= 0.9 * len(found) else 1)


def python(*arguments: str) -> str:
    """What a Python process of its own prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def print_time(name: str, overrides: list[str]) -> None:
    """Prints the range of seconds that a run is forecast to take."""
    import inlay
    from inlay.tuner.check import forecast_run

    print(*forecast_run(inlay.load_recipe(name, overrides))[1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--time"]:
        print_time(sys.argv[2], sys.argv[3:])
    else:
        main()
