"""Comparisons to draw pages of. All their figures are invented."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from report_runs import record as run_record
from report_runs import steps

from inlay.tuner.comparison.page import page
from inlay.tuner.comparison.page.files import read_files
from inlay.tuner.comparison.records import (
    ComparisonRecord,
    CostRecord,
    EstimateRecord,
    ForgettingRecord,
    PairRecord,
    RowRecord,
    ScoreInfo,
    TrialRecord,
)
from inlay.tuner.records import Metrics, Prediction, ScoreRecord

# label, method, title, rouge, groups of rouge and perplexity, trainable parameters
METHODS = [
    ("dora r16", "dora", "DoRA", 16.21, "a", "a", 5_031_936),
    ("lora r16", "lora", "LoRA", 15.92, "a", "ab", 4_884_480),
    ("oft b32", "oft", "OFT", 15.58, "ab", "b", 2_101_248),
    ("vera r256", "vera", "VeRA", 14.98, "b", "b", 184_320),
    ("ia3", "ia3", "(IA)³", 14.61, "b", "b", 55_296),
    ("prefix 20", "prefix", "Prefix tuning", 12.84, "c", "c", 460_800),
]
SCORES = {
    "rougeL": ScoreInfo(unit="points", higher_is_better=True, ratio=False, signature="rougeL|stem:yes|rouge-score"),
    "perplexity": ScoreInfo(unit="per token", higher_is_better=False, ratio=True, signature="perplexity|tokens"),
    "distinct2": ScoreInfo(unit="points", higher_is_better=None, ratio=False, signature="distinct2|whitespace"),
}  # fmt: skip
SENTENCES = [
    "A man asks for a room with a view of the harbour for two nights in May.",
    "The customer wants her money back because the kettle leaks at the lid.",
    "Two friends agree to take the early train and to share a sandwich.",
    "Ben will be late, so Ann starts the meeting without him.",
    "The clinic moves the appointment to Thursday at a quarter past nine.",
    "Her neighbour offers to feed the cat while she is away in Lisbon.",
    "They compare two flats and decide for the one nearer to the park.",
    "The guide explains why the bridge was never finished.",
]


def estimate(value: float, width: float, group: str, seeds: int, intervals: bool = True) -> EstimateRecord:
    """An estimate around `value`; with one seed or more, each seed a little off it."""
    chance = random.Random(f"{value}{group}{seeds}")
    found = [round(value + chance.uniform(-0.6, 0.6) * width, 4) for _ in range(seeds)]
    mean = sum(found) / len(found)
    ci95 = (mean - width * 0.95, mean + width * 1.05) if intervals else None
    return EstimateRecord(value=mean, ci95=ci95, seeds=found, group=group, note="" if intervals else "one example")


def scores_of(rouge: float, groups: Sequence[str], seeds: int, intervals: bool) -> dict[str, EstimateRecord]:
    return {
        "rougeL": estimate(rouge, 0.5, groups[0], seeds, intervals),
        "perplexity": estimate(60.0 - rouge * 1.4, 0.9, groups[1], seeds, intervals),
        "distinct2": estimate(40.0 + rouge / 7, 1.2, "a", seeds, intervals),
    }


def cost(parameters: int, place: int) -> CostRecord:
    return CostRecord(
        trainable_parameters=parameters, adapter_bytes=parameters * 2 + 4096,
        extra_base_bytes=21_000_000 * (place == 2), tokens_per_second=1940.2 - 90 * place,
        train_seconds=(262.0, 214.0, 248.0, 231.0, 188.0, 171.5)[place % 6] + place,
        train_peak_bytes=1_512_000_000 + 61_000_000 * ((place * 5) % 7), eval_seconds=46.0 + place,
        eval_peak_bytes=912_000_000, latency_seconds=0.0212 + place / 2000,
        merged_latency_seconds=None if place == 5 else 0.0199,
    )  # fmt: skip


def trials_of(slug: str, best: float, place: int) -> list[TrialRecord]:
    rates = (1e-4, 3e-4, 1e-3, 3e-3)
    found = []
    for number, rate in enumerate(rates):
        away = abs(rates.index(best) - number)
        broken = place == 1 and number == 3
        found.append(
            TrialRecord(folder=f"trials/{slug}-{number}", values={"train.learning_rate": rate},
                        objective=None if broken else 15.1 - place / 3 - away * 0.9, step=40 if away > 1 else 120,
                        stopped=away > 1, reason="the loss is not a number" if broken else "")
        )  # fmt: skip
    return found


def row(place: int, text: str, seeds: int, search: bool, intervals: bool) -> RowRecord:
    label, method, title, rouge, *groups, parameters = METHODS[place % len(METHODS)]
    if place >= len(METHODS):
        label, rouge = f"{label} no. {place}", rouge - place * 0.11
    slug = f"row{place}"
    best = (1e-3, 3e-4, 3e-3)[place % 3]
    return RowRecord(
        label=label + text, kind="method", method=method + text, title=title + text, options={f"r{text}": 16},
        learning_rate=best, status="done", reason="", differs=[f"dequantized targets{text}"] if place == 2 else [],
        seeds=list(range(seeds)), cells=[f"cells/{slug}-{seed}" for seed in range(seeds)], steps=120, rows_seen=1920,
        tokens_seen=210_000, scores=scores_of(rouge, groups, seeds, intervals), cost=cost(parameters + place, place),
        forgetting=ForgettingRecord(value=0.0112 * (place + 1), ci95=(0.004 * place, 0.02 * (place + 1)),
                                    seeds=[0.0112] * seeds),
        trials=trials_of(slug, best, place) if search else [],
        chosen={"train.learning_rate": best} if search else {},
        at_edge=["train.learning_rate"] if search and best == 3e-3 else [],
    )  # fmt: skip


def base_row(text: str, intervals: bool) -> RowRecord:
    return RowRecord(
        label=f"base{text}", kind="base", method="none", title="untouched", options={}, learning_rate=None,
        status="done", reason="", differs=[], seeds=[0], cells=["cells/base"], steps=0, rows_seen=0, tokens_seen=0,
        scores=scores_of(11.1, ["", ""], 1, intervals), cost=None, forgetting=None, trials=[], chosen={}, at_edge=[],
    )  # fmt: skip


def unfinished(text: str) -> list[RowRecord]:
    empty = {"seeds": [], "cells": [], "scores": {}, "cost": None, "forgetting": None, "trials": []}
    first = row(0, text, 1, False, True)
    return [
        first.model_copy(update={**empty, "label": f"full fine-tune{text}", "kind": "full", "method": "full",
                                 "status": "failed", "title": "Full fine-tuning", "differs": [],
                                 "reason": f"out of memory at step 1: needs 58 GB, has 24{text}"}),
        first.model_copy(update={**empty, "label": f"boft b8{text}", "method": "boft", "title": "BOFT",
                                 "status": "refused", "reason": f"needs plain layers, the base is in nf4{text}"}),
        first.model_copy(update={**empty, "label": f"lora short{text}", "method": "lora", "title": "LoRA",
                                 "status": "incomparable", "reason": f"saw 960 rows, the others 1,920{text}",
                                 "scores": scores_of(15.0, ["", ""], 1, True)}),
    ]  # fmt: skip


def pairs_of(rows: Sequence[RowRecord]) -> list[PairRecord]:
    found = []
    for score, info in SCORES.items():
        for index, first in enumerate(rows):
            for second in rows[index + 1 :]:
                one, other = first.scores[score], second.scores[score]
                value = one.value - other.value
                width = 0.7 if not info.ratio else 2.1
                value = 100 * value / other.value if info.ratio else value
                tie = bool(set(one.group) & set(other.group))
                found.append(
                    PairRecord(a=first.label, b=second.label, score=score, value=value,
                               ci95=(value - width, value + width) if one.ci95 else None,
                               unit="%" if info.ratio else "points", p=0.21 if tie else 0.0004,
                               adjusted=0.63 if tie else 0.0061, apart=not tie, claim="seeds")
                )  # fmt: skip
    return found


def comparison(methods: int = 6, seeds: int = 3, examples: int = 40, text: str = "", search: bool = True,
               intervals: bool = True, failures: bool = True) -> ComparisonRecord:  # fmt: skip
    """A complete comparison; `text` is planted wherever data, models or users can put text."""
    rows = [row(place, text, seeds, search, intervals) for place in range(methods)]
    base = base_row(text, intervals)
    run = run_record(text)
    return ComparisonRecord(
        id=f"dialogue-methods-4f2a91c{text}", name="dialogue-methods", status="complete", reason="",
        created="2026-03-04 10:21 UTC", seconds=4211.0, command=f"inlay compare dialogue-methods{text}",
        identity="9d" * 32, spec=f"name: dialogue-methods  # {text}\nrows: [dora, lora]\n", task=f"summarization{text}",
        base=run.base, data=run.data, environment=run.environment, split="test", examples=examples,
        decoding=f"greedy, at most 64 new tokens{text}", language="en", seeds=list(range(seeds)), score="rougeL",
        score_info={key: info.model_copy(update={"signature": info.signature + text}) for key, info in SCORES.items()},
        claim="seeds" if seeds > 1 else "examples",
        tuning="4 learning rates for each method, on validation rows only, 40 steps each" if search else "",
        detectable=0.82 if intervals else None,
        heading=f"DoRA, LoRA and OFT cannot be told apart in ROUGE-L; DoRA and LoRA are ahead of the other three{text}",
        sentences=[f"dora r16, lora r16 and oft b32 cannot be told apart here; oft b32 is the smallest of them.{text}",
                   "The best learning rate of oft b32 is at the edge of its grid (3e-3)."],
        protocol=[f"the same 40 test rows, in the same order{text}", "120 steps of 16 rows", "greedy decoding"],
        rows=[*rows, base, *(unfinished(text) if failures else [])], pairs=pairs_of([*rows, base]),
    )  # fmt: skip


def replies(label: str, quality: float, seed: int, examples: int, text: str) -> list[Prediction]:
    """Replies that keep each word of the reference with a chance of `quality`, scored by the share that is kept."""
    found = []
    for index in range(examples):
        chance = random.Random(f"{label}{seed}{index}")
        reference = SENTENCES[index % len(SENTENCES)]
        words = reference.split()
        kept = [chance.random() < quality for _ in words]
        said = " ".join(
            word if keep else chance.choice(["later", "some", "they", "not"])
            for word, keep in zip(words, kept, strict=True)
        )
        base = " ".join(words[: 3 + index % 4])
        prompt = (
            f"Summarize this dialogue, no. {index + 1}.\nA: {SENTENCES[(index + 3) % len(SENTENCES)]}\nB: Fine.{text}"
        )
        found.append(
            Prediction(id=f"row-{index:04d}{text}", prompt=prompt, references=[reference + text],
                       prediction=said + text, base_prediction=base + text, finished=True, base_finished=index % 5 > 0,
                       scores={"rougeL": 100.0 * sum(kept) / len(kept)}, base_scores={"rougeL": 2.5 * (3 + index % 4)})
        )  # fmt: skip
    return found


def write_comparison(folder: Path, record: ComparisonRecord, text: str = "") -> Path:
    """Writes `comparison.json` and the run folder of every cell."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(record.model_dump_json(), encoding="utf-8")
    base = next((row for row in record.rows if row.kind == "base"), None)
    for row in record.rows:
        for seed, cell in enumerate(row.cells):
            untouched = row.kind == "base"
            quality = 0.3 if untouched else row.scores["rougeL"].value / 20
            run = run_record(text, id=Path(cell).name, seed=seed)
            spent = row.cost or cost(1, 0)
            off = seed - (len(row.cells) - 1) / 2  # the seeds' costs lie around the row's
            train = run.train.model_copy(
                update={
                    "seconds": spent.train_seconds + 9 * off,
                    "peak_bytes": spent.train_peak_bytes + int(8e6 * off),
                }
            )
            known = {
                "rougeL": ScoreRecord(
                    value=11.1, ci95=None, unit="points", higher_is_better=True, signature="", n=1, note=""
                )
            }
            found = Metrics(base=known if base else {}, tuned={} if untouched else known, change={})
            run = run.model_copy(update={"metrics": found, "train": None if untouched else train})
            place = folder / cell
            place.mkdir(parents=True, exist_ok=True)
            (place / "run.json").write_text(run.model_dump_json(), encoding="utf-8")
            lines = replies(row.label, quality, seed, record.examples, text)
            (place / "predictions.jsonl").write_text(
                "".join(line.model_dump_json() + "\n" for line in lines), encoding="utf-8"
            )
            logged = [] if untouched else [
                step.model_copy(
                    update={
                        "loss": step.loss * (1.6 - quality) * (1 + seed / 50),
                        "validation": {"loss": step.loss * (1.7 - quality)} if step.step % 30 == 0 else {},
                    }
                )
                for step in steps(12)
            ]  # fmt: skip
            (place / "train.jsonl").write_text(
                "".join(line.model_dump_json() + "\n" for line in logged), encoding="utf-8"
            )
    return folder


def draw(folder: Path, record: ComparisonRecord, text: str = "") -> str:
    """The page alone, without the files of the figures, which take longer."""
    return page.draw_page(read_files(write_comparison(folder, record, text)), ["quality.png", "quality.svg"])
