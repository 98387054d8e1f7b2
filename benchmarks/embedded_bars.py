"""Measures what the quickstart must reach, and says of each bar whether it did.

    python benchmarks/embedded_bars.py [--seeds 3]

Runs the quickstart recipe (LoRA on the 4-bit embedded base) and full fine-tuning at equal steps once a seed, and three
answers that need no training: the document's first sentence, its last turn, and the summary of the most similar
training document. Writes benchmarks/results/embedded_bars.json and prints a table. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import fmean

import inlay
from inlay.eval import Record
from inlay.eval.metrics.rouge import Rouge
from inlay.eval.statistics import summarize

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "recipes" / "embedded" / "data"
FULL_LEARNING_RATE = 1e-3
WORD = re.compile(r"[A-Za-z]+|\d+")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    train, test = rows("train"), rows("test")
    simple = {
        "first sentence": [re.split(r"(?<=[.!?])\s", row["document"])[0] for row in test],
        "last turn": [row["document"].strip().splitlines()[-1] for row in test],
        "nearest training summary": nearest(train, test),
    }
    references = [row["summary"] for row in test]
    lora = [run(seed, "lora", []) for seed in seeds]
    everything = ["adapter={method: full}", f"train.learning_rate={FULL_LEARNING_RATE}"]
    full = [run(seed, "full", everything) for seed in seeds]
    untrained = {name: rouge_l(answers, references) for name, answers in simple.items()}
    result = {
        "seeds": len(seeds),
        "rouge_l": {
            "tuned": [r["tuned"]["rougeL"] for r in lora],
            "base": lora[0]["base"]["rougeL"],
            "full": [r["tuned"]["rougeL"] for r in full],
            **untrained,
        },
        "perplexity": {"tuned": [r["tuned"]["perplexity"] for r in lora], "base": lora[0]["base"]["perplexity"]},
        "names_and_numbers_kept": [r["kept"] for r in lora],
        "seconds": [r["seconds"] for r in lora],
        "peak_bytes": max(r["peak_bytes"] for r in lora),
        "environment": lora[0]["environment"],
    }
    bars = judge(result, max(untrained.values()))
    out = HERE / "results" / "embedded_bars.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({**result, "bars": bars}, indent=1) + "\n", encoding="utf-8")
    for bar in bars:
        print(f"{'met   ' if bar['met'] else 'MISSED'}  {bar['what']}: {bar['found']:.4g} (bar: {bar['bar']:.4g})")
    sys.exit(0 if all(bar["met"] for bar in bars) else 1)


def judge(result: dict, best_simple: float) -> list[dict]:
    """Each bar with what was found."""
    scores, perplexity = result["rouge_l"], result["perplexity"]
    tuned = fmean(scores["tuned"])
    at_least = [
        ("ROUGE-L above the base, points", tuned - scores["base"], 20),
        ("ROUGE-L above the best simple answer, points", tuned - best_simple, 10),
        ("ROUGE-L as a share of full fine-tuning's", tuned / fmean(scores["full"]), 0.85),
        ("names and numbers kept, share", fmean(result["names_and_numbers_kept"]), 0.6),
    ]
    at_most = [
        ("answer perplexity as a share of the base's", fmean(perplexity["tuned"]) / perplexity["base"], 1 / 3),
        ("seconds of `inlay run quickstart`", max(result["seconds"]), 120),
        ("peak memory, GB", result["peak_bytes"] / 1e9, 2),
    ]
    return [{"what": w, "found": f, "bar": b, "met": f >= b} for w, f, b in at_least] + [
        {"what": w, "found": f, "bar": b, "met": f <= b} for w, f, b in at_most
    ]


def run(seed: int, method: str, overrides: list[str]) -> dict:
    """The numbers of one run of the quickstart recipe."""
    started = time.perf_counter()
    folder = inlay.run("quickstart", overrides=[f"seed={seed}", f"name=bars-{method}-{seed}", *overrides])
    seconds = time.perf_counter() - started
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").open(encoding="utf-8")]
    values = {side: {name: s["value"] for name, s in record["metrics"][side].items()} for side in ("tuned", "base")}
    return {
        **values,
        "kept": kept(predictions),
        # a finished run is read, not made again: its own record says how long it took
        "seconds": max(seconds, record["seconds"]),
        "peak_bytes": max(record["train"]["peak_bytes"], record["eval"]["peak_bytes"]),
        "environment": record["environment"],
    }


def rows(split: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / f"summarization-{split}.jsonl").open(encoding="utf-8")]


def rouge_l(answers: list[str], references: list[str]) -> float:
    records = [
        Record(str(i), (reference,), answer, True, 1.0, 1, 1)
        for i, (answer, reference) in enumerate(zip(answers, references, strict=True))
    ]
    return summarize([Rouge("en")], records, seed=0)[0]["rougeL"].value


def nearest(train: list[dict], test: list[dict]) -> list[str]:
    """For each test document, the summary of the training document with the highest TF-IDF cosine."""
    counts = [Counter(WORD.findall(row["document"].lower())) for row in train]
    seen = Counter(word for count in counts for word in count)
    weight = {word: math.log(len(train) / n) for word, n in seen.items()}
    vectors = [normalized(count, weight) for count in counts]
    answers = []
    for row in test:
        query = normalized(Counter(WORD.findall(row["document"].lower())), weight)
        scores = [sum(value * vector.get(word, 0.0) for word, value in query.items()) for vector in vectors]
        answers.append(train[max(range(len(train)), key=scores.__getitem__)]["summary"])
    return answers


def normalized(count: Counter, weight: dict[str, float]) -> dict[str, float]:
    vector = {word: n * weight.get(word, 0.0) for word, n in count.items()}
    length = math.sqrt(sum(value * value for value in vector.values())) or 1.0
    return {word: value / length for word, value in vector.items()}


def kept(predictions: list[dict]) -> float:
    """Of the names and numbers that stand in prompt and reference, the share that stands in the output too.

    A name is a capitalized word that is nowhere written with a small letter in these texts.
    """
    small = {w for p in predictions for w in WORD.findall(p["prompt"] + " " + p["references"][0]) if w.islower()}
    found = wanted = 0
    for p in predictions:
        both = set(WORD.findall(p["prompt"])) & set(WORD.findall(p["references"][0]))
        names = {word for word in both if word.isdigit() or (word[0].isupper() and word.lower() not in small)}
        wanted += len(names)
        found += len(names & set(WORD.findall(p["prediction"])))
    return found / wanted


if __name__ == "__main__":
    main()
