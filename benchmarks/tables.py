"""Writes the README's tables from the files under benchmarks/results: `python benchmarks/tables.py [--check]`.

Each table stands between `<!-- NAME -->` and `<!-- /NAME -->`. With --check nothing is written; the exit code is 1
where a table is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from inlay import adapters
from inlay.tuner.records import RunRecord, ScoreRecord

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
SHOWN = {
    "dialogue": ("rougeL", "bleu", "perplexity"),
    "summarization": ("rougeL", "bleu", "perplexity"),
    "classification": ("accuracy", "f1"),
}
TITLES = {"rougeL": "ROUGE-L", "bleu": "BLEU", "perplexity": "perplexity", "accuracy": "accuracy %", "f1": "macro-F1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the tables are fresh")
    check = parser.parse_args().check
    text = README.read_text(encoding="utf-8")
    fresh = fill(text)
    if not check:
        README.write_text(fresh, encoding="utf-8")
    sys.exit(1 if check and fresh != text else 0)


def fill(text: str) -> str:
    """The README's text with every table made anew."""
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = block.sub(lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", text)
    return text


def real_models() -> str:
    """One table a task: methods against the untouched base, with 95 % intervals."""
    records = [RunRecord.model_validate(r) for r in load("real_models.json")]
    parts = []
    for task, names in SHOWN.items():
        runs = [record for record in records if record.task == task]
        first = runs[0]
        rows, left = first.eval.rows, first.data.left_out
        total = first.data.rows["train"] + left["train"]
        name, fits = first.name.split("-tinytalk")[0], first.data.rows["train"] / total
        head = f"**{name}** ({task}, {rows} {first.eval.split} rows; {first.train.steps} steps"
        head += f"; {fits:.0%} of the training rows fit the context)" if left["train"] else ")"
        lines = [head, "", "| | trains | " + " | ".join(TITLES[n] for n in names) + " | peak GB |"]
        lines.append("|---|--:|" + "--:|" * (len(names) + 1))
        base = " | ".join(shown(first.metrics.base[n]) for n in names)
        lines.append(f"| base, untouched | 0 | {base} | |")
        for run in runs:
            scores = " | ".join(shown(run.metrics.tuned[n]) for n in names)
            size, peak = run.adapter.trainable_parameters, run.train.peak_bytes / 1e9
            title = adapters.find(run.adapter.method).title
            lines.append(f"| {title} | {size:,} | {scores} | {peak:.2f} |")
        parts.append("\n".join(lines))
        base = first.metrics.base[names[0]]
        parts += [shorter_prompts(run, names) for run in runs if run.metrics.base[names[0]] != base]
    versions = records[0].environment
    parts.append(
        f"One seed a cell, NF4 double-quantized, fp32 compute; {versions.device}, {versions.threads} thread(s), "
        f"torch {versions.versions['torch']}, transformers {versions.versions['transformers']}, "
        f"peft {versions.versions['peft']}, bitsandbytes {versions.versions['bitsandbytes']}."
    )
    return "\n\n".join(parts)


def shorter_prompts(run: RunRecord, names: Sequence[str]) -> str:
    """Why a run's base row is not the table's: its adapter takes positions of a short context."""
    base = ", ".join(f"{TITLES[name]} {shown(run.metrics.base[name])}" for name in names)
    method = run.adapter.method
    return f"`{method}` takes positions of the context, so its prompts are cut shorter; there the base has {base}."


def shown(score: ScoreRecord) -> str:
    """Value and interval, with as many decimals as its width justifies."""
    if score.ci95 is None:
        return f"{score.value:.4g}"
    low, high = score.ci95
    decimals = 0 if high - low >= 10 else 1 if high - low >= 1 else 2
    return f"{score.value:.{decimals}f} ({low:.{decimals}f}-{high:.{decimals}f})"


def embedded_bars() -> str:
    """The quickstart's bars and what was measured."""
    result = load("embedded_bars.json")
    lines = ["| what | measured | bar | |", "|---|--:|--:|---|"]
    for bar in result["bars"]:
        verdict = "met" if bar["met"] else "missed"
        lines.append(f"| {bar['what']} | {bar['found']:.3g} | {bar['bar']:.3g} | {verdict} |")
    scores = result["rouge_l"]
    named = {"untouched base": scores["base"], "LoRA": fmean(scores["tuned"])}
    named |= {"full fine-tuning": fmean(scores["full"])}
    named |= {k: v for k, v in scores.items() if k not in ("base", "tuned", "full")}
    lines += ["", "ROUGE-L: " + ", ".join(f"{name} {value:.1f}" for name, value in named.items()) + "."]
    lines += [f"Means of {result['seeds']} seeds; {result['environment']['device']}."]
    return "\n".join(lines)


def quickstart() -> str:
    """What `inlay run quickstart` printed when it was last measured."""
    text = (HERE / "results" / "quickstart.txt").read_text(encoding="utf-8").rstrip()
    return f"```console\n$ inlay run quickstart\n{text}\n```"


def methods() -> str:
    """What each method is and can do, from the methods themselves."""
    heads = ("method", "what", "bases", "merges into the base", "activation checkpointing", "paper")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in adapters.names():
        method = adapters.find(name)
        kinds = ", ".join(method.kinds)
        merge, checkpoints = ("yes" if flag else "no" for flag in (method.mergeable, method.checkpointing))
        lines.append(f"| `{name}` | {method.title} | {kinds} | {merge} | {checkpoints} | {method.paper} |")
    return "\n".join(lines)


def load(name: str) -> list | dict:
    return json.loads((HERE / "results" / name).read_text(encoding="utf-8"))


TABLES = {"quickstart": quickstart, "real-models": real_models, "embedded-bars": embedded_bars, "methods": methods}


if __name__ == "__main__":
    main()
