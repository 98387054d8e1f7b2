"""Times a comparison of six methods against six scripts of plain peft and Trainer, side by side.

    python benchmarks/compare_speed.py

Steps, test rows and methods are those of `compare-quickstart`, with one seed, and DoRA for the bottleneck adapter,
which peft does not have. All start from nothing each time, train the same steps on the same rows and measure the same
test rows; the comparison measures the untouched base, the noise of batching and what was forgotten besides. The scripts
run as guides and defaults have them, and tuned by hand (see `plain_peft.py`). It takes a quarter of an hour. Writes
benchmarks/results/compare_speed.json; the table in RESULTS.md is made of it by benchmarks/tables.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

from inlay.tuner.environment import describe

HERE = Path(__file__).resolve().parent
METHODS = ("lora", "miss", "ia3", "prefix", "oft", "dora")
STEPS, ROWS = 30, 200
SCRIPTS = {"guide": (), "tuned": ("--tuned",)}


def main() -> None:
    embedded = Path(str(resources.files("inlay.recipes") / "embedded"))
    data = embedded / "data"
    with tempfile.TemporaryDirectory() as folder:
        ours, _ = timed(
            ["-m", "inlay.tuner", "compare", "quickstart", "--methods", ",".join(METHODS), "--seeds", "1",
             "--set", f"train.max_steps={STEPS}", "--set", "train.learning_rate=5e-3",
             "--set", f"task.data.max_rows.test={ROWS}"],
            folder,
        )  # fmt: skip
        result = {"steps": STEPS, "rows": ROWS, "comparison_seconds": ours}
        for name, flags in SCRIPTS.items():
            found = {
                method: timed(
                    [str(HERE / "plain_peft.py"), method, "--base", str(embedded / "base"),
                     "--train", str(data / "summarization-train.jsonl"),
                     "--test", str(data / "summarization-test.jsonl"),
                     "--steps", str(STEPS), "--rows", str(ROWS), *flags],
                    folder,
                )
                for method in METHODS
            }  # fmt: skip
            result[name] = {method: {"seconds": took, **json.loads(said)} for method, (took, said) in found.items()}
            theirs = sum(took for took, _ in found.values())
            print(
                f"comparison {ours:.0f} s, six scripts ({name}) {theirs:.0f} s: {theirs / ours:.2f} times", flush=True
            )
    out = HERE / "results" / "compare_speed.json"
    out.write_text(
        json.dumps(result | {"environment": describe("cpu").model_dump()}, indent=1) + "\n", encoding="utf-8"
    )
    print(out)


def timed(arguments: list[str], folder: str) -> tuple[float, str]:
    """Seconds that a Python process takes from its start to its end, and the last line that it printed."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - started, done.stdout.strip().rpartition("\n")[2]


if __name__ == "__main__":
    main()
