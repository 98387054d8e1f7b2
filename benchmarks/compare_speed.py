"""Times a comparison of six methods against six scripts of plain peft and Trainer, side by side.

    python benchmarks/compare_speed.py

Both start from nothing each time, train the same steps on the same rows and measure the same test rows; the comparison
measures the untouched base as well. The two take turns. Writes benchmarks/results/compare_speed.json.
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
METHODS = ("lora", "dora", "miss", "oft", "ia3", "prefix")
STEPS, ROWS, TURNS = 40, 100, 2


def main() -> None:
    embedded = Path(str(resources.files("inlay.recipes") / "embedded"))
    data = embedded / "data"
    turns = []
    for _ in range(TURNS):
        with tempfile.TemporaryDirectory() as folder:
            ours = timed(
                ["-m", "inlay.tuner", "compare", "quickstart", "--methods", ",".join(METHODS), "--seeds", "1",
                 "--set", f"train.max_steps={STEPS}", "--set", "train.learning_rate=5e-3",
                 "--set", f"task.data.max_rows.test={ROWS}"],
                folder,
            )  # fmt: skip
            theirs = {
                method: timed(
                    [str(HERE / "plain_peft.py"), method, "--base", str(embedded / "base"),
                     "--train", str(data / "summarization-train.jsonl"),
                     "--test", str(data / "summarization-test.jsonl"), "--steps", str(STEPS), "--rows", str(ROWS)],
                    folder,
                )
                for method in METHODS
            }  # fmt: skip
        turns.append({"comparison_seconds": ours, "script_seconds": theirs, "ratio": sum(theirs.values()) / ours})
        print(f"comparison {ours:.0f} s, six scripts {sum(theirs.values()):.0f} s: {turns[-1]['ratio']:.2f} times")
    result = {"steps": STEPS, "rows": ROWS, "turns": turns, "environment": describe("cpu").model_dump()}
    out = HERE / "results" / "compare_speed.json"
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(out)


def timed(arguments: list[str], folder: str) -> float:
    """Seconds that a Python process takes from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
