"""Writes the README's tables and benchmarks/RESULTS.md from the files under benchmarks/results.

    python benchmarks/tables.py [--check]

Each table stands between `<!-- NAME -->` and `<!-- /NAME -->`. With --check nothing is written; the exit code is 1
where a table is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from inlay import adapters
from inlay.tuner.comparison.records import ComparisonRecord, EstimateRecord, RowRecord
from inlay.tuner.export.records import ExportRecord
from inlay.tuner.records import RunRecord, ScoreRecord

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
RESULTS = HERE / "RESULTS.md"
SEARCH = (
    "What `inlay compare compare-search` printed, kept in `results/compare-search.txt`. It ran on one thread of a busy "
    "machine, so its times say nothing."
)
SHOWN = {
    "dialogue": ("rougeL", "bleu", "perplexity"),
    "summarization": ("rougeL", "bleu", "perplexity"),
    "classification": ("accuracy", "f1"),
    "text_to_text": ("rougeL", "bleu", "chrf", "perplexity"),
}
COMPARED = {"E2E": "compare-e2e", "TREC": "compare-trec"}
MAIN = {"dialogue": "perplexity", "summarization": "rougeL", "classification": "accuracy", "text_to_text": "bleu"}
TITLES = {"rougeL": "ROUGE-L", "bleu": "BLEU", "chrf": "chrF", "accuracy": "accuracy %", "f1": "macro-F1"}
TITLES |= {"perplexity": "perplexity"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the tables are fresh")
    check = parser.parse_args().check
    text = README.read_text(encoding="utf-8")
    fresh = fill(text)
    stale = fresh != text or not RESULTS.is_file() or RESULTS.read_text(encoding="utf-8") != results()
    if not check:
        README.write_text(fresh, encoding="utf-8")
        RESULTS.write_text(results(), encoding="utf-8")
    sys.exit(1 if check and stale else 0)


def fill(text: str) -> str:
    """The README's text with every table made anew."""
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = block.sub(lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", text)
    return text


def real_models() -> str:
    """A line for each data set and base: one score of the untouched base and of three methods, with 95 % intervals."""
    found = runs()
    methods = list(dict.fromkeys(run["record"].adapter.method for run in found))
    heads = [adapters.find(name).title for name in methods]
    lines = ["| set | base | score | untouched | " + " | ".join(heads) + " |"]
    lines.append("|---|---|---|" + "--:|" * (len(heads) + 1))
    places = list(dict.fromkeys((run["set"], run["model"]) for run in found))
    for name, model in places:
        here = [run["record"] for run in found if (run["set"], run["model"]) == (name, model)]
        own = {record.adapter.method: record.metrics for record in here}
        score = MAIN[here[0].task]
        cells = [shown(own[methods[0]].base[score]), *(shown(own[method].tuned[score]) for method in methods)]
        rows, left = here[0].data.rows["train"], here[0].data.left_out["train"]
        share = f" ({rows / (rows + left):.0%} of the rows fit)" if left else ""
        said = " (Chinese, which these bases never saw)" if name.endswith("_zh") else share
        lines.append(f"| {name}{said} | {model} | {TITLES[score]} | " + " | ".join(cells) + " |")
    place = found[0]["record"].environment
    lines += [
        "",
        f"One seed a cell, NF4 double-quantized, fp32 compute; {place.device}, {place.threads} thread(s), torch "
        f"{place.versions['torch']}, transformers {place.versions['transformers']}, peft {place.versions['peft']}, "
        f"bitsandbytes {place.versions['bitsandbytes']}.",
    ]
    return "\n".join(lines)


def results() -> str:
    """RESULTS.md: every score of every run on a real base, with what the run saw and took."""
    parts = ["# Results", "Written by `python benchmarks/tables.py` from `results/real_models.json`.", real_models()]
    found = runs()
    for name, model in dict.fromkeys((run["set"], run["model"]) for run in found):
        own = [run["record"] for run in found if (run["set"], run["model"]) == (name, model)]
        parts += [f"## {name} on {model}", _what(own[0])]
        names = SHOWN[own[0].task]
        lines = ["| | trains | " + " | ".join(TITLES[n] for n in names) + " | steps/s | peak GB |"]
        lines.append("|---|--:|" + "--:|" * (len(names) + 2))
        for run in own:
            title = adapters.find(run.adapter.method).title
            base = " | ".join(shown(run.metrics.base[n]) for n in names)
            tuned = " | ".join(shown(run.metrics.tuned[n]) for n in names)
            if run is own[0] or run.metrics.base != own[0].metrics.base:
                where = "" if run is own[0] else f", prompts as short as {title} needs them"
                lines.append(f"| untouched base{where} | 0 | {base} | | |")
            speed, peak = run.train.steps / run.train.seconds, run.train.peak_bytes / 1e9
            lines.append(f"| {title} | {run.adapter.trainable_parameters:,} | {tuned} | {speed:.2f} | {peak:.2f} |")
        parts.append("\n".join(lines))
    for title, name in COMPARED.items():
        parts += [f"## {title}, compared", f"From `results/{name}.json`.", _compared(name)]
    parts += ["## A search of learning rates", SEARCH, f"```\n{_searched()}\n```"]
    parts += ["## Speed of a comparison", "Written by `benchmarks/compare_speed.py`.", compared_speed()]
    parts += ["## Exports", "Written by `benchmarks/exports.py` to `results/exports.json`.", exports(), exported()]
    parts += ["## Forecasts", f"{forecasts()} Ten short runs; `benchmarks/forecasts.py`."]
    parts += ["## The quickstart's bars", "Written from `results/embedded_bars.json`.", embedded_bars()]
    return "\n\n".join(parts) + "\n"


def compared_speed() -> str:
    """A comparison of six methods beside six scripts of plain peft and Trainer, in one run."""
    found = load("compare_speed.json")
    ours, guide, tuned = found["comparison_seconds"], found["guide"], found["tuned"]
    lines = [
        "| | seconds | as guides have it | tuned by hand | ROUGE-L there |",
        "|---|--:|--:|--:|--:|",
        f"| six methods, base and forgetting, `inlay compare` | {ours:.0f} | | | |",
    ]
    for method, one in guide.items():
        other = tuned[method]
        scores = f"{one['rougeL']:.1f}, {other['rougeL']:.1f}"
        lines.append(
            f"| {method}, plain peft and Trainer | | {one['seconds']:.0f} | {other['seconds']:.0f} | {scores} |"
        )
    sums = [sum(one["seconds"] for one in scripts.values()) for scripts in (guide, tuned)]
    lines.append(f"| six scripts | | {sums[0]:.0f} | {sums[1]:.0f} | |")
    ratios = [f"{total / ours:.2f} times" for total in sums]
    lines.append(f"| as long as the comparison | | {ratios[0]} | {ratios[1]} | |")
    lines += [
        "",
        f"{found['steps']} steps, {found['rows']} test rows, one seed, from starting Python to the last score. As "
        "guides have it: `prepare_model_for_kbit_training`, which turns activation checkpointing on, and batches of 8 "
        "in evaluation, Trainer's default. Tuned by hand: no checkpointing, batches of 32.",
    ]
    return "\n".join(lines)


def _what(run: RunRecord) -> str:
    """What a run saw, in a sentence."""
    rows, left, cut = run.data.rows["train"], run.data.left_out["train"], run.data.documents_cut["train"]
    said = f"{run.task}: {run.train.steps} steps, {run.train.rows_seen:,} rows seen of {rows:,}; "
    said += f"{run.eval.rows} rows of {run.eval.split} measured."
    if left:
        said += f" {rows / (rows + left):.0%} of the training rows fit the context whole; the others were left out."
    if cut:
        said += f" The documents of {cut / rows:.0%} of the training rows were cut to fit the context."
    if run.data.dropped:
        said += f" {run.data.dropped:,} training rows that stand in the test were left out."
    return said


def runs() -> list[dict]:
    """The runs on real bases, with their records."""
    return [{**run, "record": RunRecord.model_validate(run["record"])} for run in load("real_models.json")]


def shown(score: ScoreRecord | EstimateRecord) -> str:
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


def forecasts() -> str:
    """How often what was measured lay in the range that was forecast."""
    result = load("forecasts.json")
    held, number = result["held"], result["of"]
    return (
        f"Of {number} runs, measured against their forecasts: peak memory lay in the range in {held['memory_gb']}, the "
        f"time in {held['seconds']}."
    )


def quickstart() -> str:
    """The scores that `inlay run quickstart` printed when it was last measured, up to the perplexity."""
    text = (HERE / "results" / "quickstart.txt").read_text(encoding="utf-8").partition("\nbits per byte")[0]
    return f"```console\n$ inlay run quickstart\n{text}\n...\n```"


def methods() -> str:
    """The methods in a few lines, by what they can do, from the methods themselves."""
    found = [adapters.find(name) for name in adapters.names()]
    own = {name: method for name, method in zip(adapters.names(), found, strict=True) if name not in ("none", "full")}

    def listed(keep: Callable[[type[adapters.Method]], bool]) -> str:
        return ", ".join(f"`{name}`" for name, method in own.items() if keep(method))

    return "\n".join(
        [
            f"* merge into the base, and PEFT converts them to LoRA: {listed(lambda m: m.mergeable and m.convertible)}",
            f"* merge into the base: {listed(lambda m: m.mergeable and not m.convertible)}",
            f"* stay beside the base: {listed(lambda m: not m.mergeable)}",
            f"* cannot train under activation checkpointing: {listed(lambda m: not m.checkpointing)}",
            f"* get their targets dequantized from the same 4-bit weights: {listed(lambda m: m.needs_float_weights)}",
        ]
    )


def compared_quickstart() -> str:
    """What `inlay compare compare-quickstart` printed when it was last measured, up to the base's row."""
    text = (HERE / "results" / "compare-quickstart.txt").read_text(encoding="utf-8")
    table = text[: text.index("\n\n", text.index("\nbase "))]
    lines = [line for line in table.splitlines() if line]
    return "\n".join(["```console", "$ inlay compare compare-quickstart", *lines, "...", "```"])


def compared_real() -> str:
    """The comparisons on a real base side by side: main score with interval, and group."""
    records = [ComparisonRecord.model_validate(load(f"{name}.json")) for name in COMPARED.values()]
    heads = [f"{name}, {TITLES[record.score]}" for name, record in zip(COMPARED, records, strict=True)]
    lines = ["| | trains | " + " | | ".join(heads) + " | |", "|---|--:|" + "--:|---|" * len(heads)]
    for row in records[0].rows:
        own = [next(other for other in record.rows if other.label == row.label) for record in records]
        cells = [_cell(one, record.score) for one, record in zip(own, records, strict=True)]
        trains = f"{row.cost.trainable_parameters:,}" if row.cost else ""
        lines.append(f"| {row.label} | {trains} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: RowRecord, score: str) -> str:
    found = row.scores.get(score)
    return f"{shown(found)} | {found.group}" if found else f"{row.status}: {row.reason} | "


def _compared(name: str) -> str:
    record = ComparisonRecord.model_validate(load(f"{name}.json"))
    score, info = TITLES[record.score], record.score_info[record.score]
    lines = [
        f"{record.heading}. {record.examples} test rows, {len(record.seeds)} seeds, {record.rows[0].steps} steps.",
        "",
        f"| | {score}, {'higher' if info.higher_is_better else 'lower'} is better | seeds | group | trains | rate |",
        "|---|--:|---|---|--:|--:|",
    ]
    for row in record.rows:
        found = row.scores.get(record.score)
        if found is None:
            lines.append(f"| {row.label} | {row.status}: {row.reason} | | | | |")
            continue
        seeds = " ".join(f"{value:.1f}" for value in found.seeds)
        trains = f"{row.cost.trainable_parameters:,}" if row.cost else ""
        rate = f"{row.learning_rate:g}{' (edge)' if row.at_edge else ''}" if row.learning_rate else ""
        lines.append(f"| {row.label} | {shown(found)} | {seeds} | {found.group} | {trains} | {rate} |")
    return "\n".join(lines)


def coverage() -> str:
    """What the intervals and groups of a comparison did in simulations."""
    found = load("coverage.json")
    covered = [cell["coverage"] for cell in found["coverage"]]
    equal = [cell for cell in found["false_claims"] if cell["scatter"] == 1.0]
    claims = [cell["false_claims"] for cell in equal]
    power = [cell["found"] for cell in found["power"] if cell["scatter"] == 1.0]
    real = load("calibration.json")
    most = max(family["at_most"] for family in real["families"])
    planted = [family["found"] for family in real["families"]]
    return (
        f"In {len(covered)} simulated settings ({found['simulations']:,} draws each) the 95 % intervals covered "
        f"{min(covered):.1%} to {max(covered):.1%}; among {equal[0]['methods']} equal methods a false claim was in "
        f"{min(claims):.1%} to {max(claims):.1%} of families; a difference of the size that is called detectable was "
        f"found in {min(power):.0%} to {max(power):.0%}. Dealt from {real['seeds']} real seeds of one method, "
        f"{real['draws']:,} times: false claims in at most {most:.1%}, a planted difference found in "
        f"{min(planted):.0%} to {max(planted):.0%} (`benchmarks/coverage.py`, `calibration.py`). {_speed()}"
    )


def _speed() -> str:
    """What a comparison takes beside scripts, in a sentence."""
    found = load("compare_speed.json")
    guide, tuned = (sum(one["seconds"] for one in found[name].values()) for name in ("guide", "tuned"))
    return (
        f"Six methods and the base took {found['comparison_seconds']:.0f} s; six scripts of plain peft and Trainer "
        f"{guide:.0f} s as guides have them, {tuned:.0f} s tuned by hand (`compare_speed.py`)."
    )


def exports() -> str:
    """What each form of export changes, by its own proof, the runs side by side."""
    found = load("exports.json")["runs"]
    heads = [f"{run['run']} on {run['base']}, {TITLES[MAIN[run['task']]]}" for run in found]
    lines = ["| | " + " | ".join(f"same next token | KL | {head}" for head in heads) + " |"]
    lines.append("|---|" + "--:|--:|---|" * len(found))
    for form in found[0]["forms"]:
        cells = [_export_cells(run["forms"][form], MAIN[run["task"]]) for run in found]
        lines.append(f"| {form} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _export_cells(made: dict, score: str) -> str:
    if "refused" in made:
        return "| | refused"
    record = ExportRecord.model_validate(made["record"])
    proof = record.quantized or record.proof
    if record.gguf:
        return f"{record.gguf.same_top:.1%} | | logits within {record.gguf.logit_gap:.2g}"
    found, pair = proof.distance, proof.scores[score]
    return f"{found.same_top:.1%} | {found.kl_mean:.2g} | {pair.reference.value:.4g} to {pair.export.value:.4g}"


def exported() -> str:
    """As `exports`, a table a run, with sizes, limits and reasons."""
    tables = []
    for run in load("exports.json")["runs"]:
        head = f"{run['run']} on {run['base']}"
        lines = [f"| {head} | MB | limit of the KL | |", "|---|--:|--:|---|"]
        for form, made in run["forms"].items():
            if "refused" in made:
                lines.append(f"| {form} | | | refused: {made['refused']} |")
                continue
            record = ExportRecord.model_validate(made["record"])
            drift = "; ".join(record.proof.faults)
            lines.append(f"| {form} | {made['bytes'] / 1e6:.1f} | {record.proof.kl_limit:.2g} | {drift} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _searched() -> str:
    return (HERE / "results" / "compare-search.txt").read_text(encoding="utf-8").partition("\n\npage ")[0]


def load(name: str) -> list | dict:
    return json.loads((HERE / "results" / name).read_text(encoding="utf-8"))


TABLES = {
    "quickstart": quickstart,
    "methods": methods,
    "compare-quickstart": compared_quickstart,
    "compare-real": compared_real,
    "coverage": coverage,
    "exports": exports,
}


if __name__ == "__main__":
    main()
