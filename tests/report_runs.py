"""Runs to draw reports of. All their figures are invented."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from inlay.tuner.records import (
    AdapterRecord,
    BaseRecord,
    ChangeRecord,
    DataRecord,
    Environment,
    EvalRecord,
    InputFile,
    Metrics,
    NoiseRecord,
    Prediction,
    RunRecord,
    ScoreRecord,
    TrainRecord,
    TrainRow,
)
from inlay.tuner.report import write_page

# key: unit, higher is better, base, tuned, change (each: value, low, high), unit of the change, verdict
SCORES = {
    "rougeL": ("points", True, (11.9, 11.2, 12.6), (27.44, 26.5, 28.4), (15.54, 14.4, 16.6), "points", "better"),
    "bleu": ("points", True, (0.414, 0.3, 0.55), (6.13, 5.4, 6.9), (5.716, 5.0, 6.5), "points", "better"),
    "perplexity": (
        "per token", False, (1082.4, 1051.0, 1113.5), (37.21, 36.1, 38.4), (-96.56, -96.8, -96.3), "%", "better",
    ),
    "bits_per_byte": (
        "bits per byte", False, (1.2144, 1.201, 1.228), (1.2151, 1.2, 1.231), (0.0007, -0.0006, 0.0019),
        "bits per byte", "unclear",
    ),
    "empty": ("%", False, (1.33, 0.7, 2.5), (2.17, 1.3, 3.7), (0.84, 0.02, 1.66), "pp", "worse"),
}  # fmt: skip


def metrics(keys: tuple[str, ...] = tuple(SCORES), text: str = "") -> Metrics:
    def score(unit: str, higher: bool, found: tuple[float, float, float]) -> ScoreRecord:
        return ScoreRecord(value=found[0], ci95=found[1:], unit=unit + text, higher_is_better=higher,
                           signature=f"case:mixed|tok:13a{text}", n=600, note=f"bootstrap{text}")  # fmt: skip

    base, tuned, change = {}, {}, {}
    for key in keys:
        unit, higher, before, after, moved, moved_unit, verdict = SCORES[key]
        base[key + text], tuned[key + text] = score(unit, higher, before), score(unit, higher, after)
        change[key + text] = ChangeRecord(value=moved[0], ci95=moved[1:], unit=moved_unit, verdict=verdict)
    return Metrics(base=base, tuned=tuned, change=change)


def record(text: str = "", **changes: object) -> RunRecord:
    """A complete run; `text` is planted wherever data, models or users can put text."""
    whole = RunRecord(
        id=f"dialogsum-lora-7k2q{text}", name="dialogsum-lora", task=f"summarization{text}", status="complete",
        reason=text, created="2026-03-04 10:21 UTC", seconds=1238.0, seed=0, recipe_hash="7k2q",
        command=f"inlay run dialogsum-lora{text}",
        base=BaseRecord(model=f"lab/Small-135M{text}", revision=text or None, sha256="ab" * 32, model_type="llama",
                        quantization=f"nf4{text}", compute_dtype="float32", parameters=134_515_008,
                        bytes=102_000_000, prompt_format=f"plain{text}"),
        adapter=AdapterRecord(method=f"lora{text}", title=f"LoRA{text}",
                              options={f"r{text}": 16, "target_modules": [f"q_proj{text}"]},
                              trainable_parameters=4_884_480, share=0.035, bytes=19_600_000),
        data=DataRecord(inputs=[InputFile(name=f"train.jsonl{text}", sha256="cd" * 32, bytes=1_234_567)],
                        sha256="ef" * 32, rows_sha256="01" * 32, rows={"train": 2000, f"test{text}": 600},
                        left_out={"train": 12}, documents_cut={}, tokens={"train": 412_004}, trained_tokens=70_123,
                        first_row=[(f"User: hello{text}\n", False), (f"hi{text}", True)]),
        train=TrainRecord(steps=500, rows_seen=8000, tokens=1_650_000, trained_tokens=280_000, seconds=892.1,
                          tokens_per_second=1849.6, peak_bytes=1_612_000_000, learning_rate=2e-4, first_loss=3.8,
                          last_loss=2.1, best_step=450, stopped_early=False),
        eval=EvalRecord(split=f"test{text}", rows=600, tokens_scored=22_123, decoding=f"greedy{text}", batch_size=8,
                        language=text or "en", seconds=246.2, peak_bytes=912_000_000,
                        noise=NoiseRecord(rows=16, identical_texts=15, nll_relative=2e-4, dtype="bfloat16"),
                        labels=[], label_tokens=[], confusion=[]),
        metrics=metrics(text=text),
        environment=Environment(python="3.11", versions={"inlay": f"0.1.0{text}"}, platform=f"Linux{text}",
                                device="cpu", threads=2, git=text or None),
    )  # fmt: skip
    return whole.model_copy(update=changes)


def classified(text: str = "", labels: int = 3) -> RunRecord:
    names = [f"{word}{text}" for word in ("sport", "world news", "价格")] + [f"label {n}" for n in range(3, labels)]
    confusion = [[40 if row == column else row + column for column in range(labels)] for row in range(labels)]
    done = record(text).eval.model_copy(
        update={"labels": names, "label_tokens": [1, 2, *[4] * (labels - 2)], "confusion": confusion}
    )
    return record(text, task="classification", eval=done)


def predictions(number: int, text: str = "") -> list[Prediction]:
    return [
        Prediction(id=f"row-{index:04d}{text}", prompt=f"Summarize this.{text}",
                   references=[f"Ben will come late.{text}"], prediction=f"Ben will come soon.{text}",
                   base_prediction=f"I like trains.{text}", finished=True, base_finished=False,
                   scores={f"rougeL{text}": 75.0}, base_scores={f"rougeL{text}": 12.5})
        for index in range(number)
    ]  # fmt: skip


def steps(number: int) -> list[TrainRow]:
    return [
        TrainRow(step=10 * index, epoch=index / 10, loss=2 + 1 / index, learning_rate=2e-4 / index, grad_norm=0.5,
                 tokens=3300 * index, seconds=18.0 * index,
                 validation={"loss": 2.5 + 1 / index, "rougeL": 3.0 * index} if index % 7 == 0 else {})
        for index in range(1, number + 1)
    ]  # fmt: skip


def write_run(folder: Path, run: RunRecord, rows: int = 3, logged: int = 12, text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(run.model_dump_json())
    (folder / "recipe.yaml").write_text(f"name: dialogsum-lora  # {text}\n", errors="backslashreplace")
    for name, lines in (("predictions", predictions(rows, text)), ("train", steps(logged))):
        (folder / f"{name}.jsonl").write_text("".join(line.model_dump_json() + "\n" for line in lines))
    return folder


def draw(folder: Path, run: RunRecord, rows: int = 3, logged: int = 12, text: str = "") -> str:
    return write_page(write_run(folder, run, rows, logged, text)).read_text(encoding="utf-8")


PAYLOADS = [
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    '"><img src=x onerror=alert(1)>', "'><svg onload=alert(1)>", "<svg/onload=alert(1)>", "</title><script>x</script>",
    "</style><script>alert(1)</script>", "</desc></svg><script>x</script>",
    "</pre><iframe src=//evil.example></iframe>",
    '" onmouseover="alert(1)', "' onfocus='alert(1)' autofocus='", "` onclick=alert(1)", "x onload=alert(1) y=",
    "javascript:alert(1)", "[a](javascript:alert(1))",
    "![a](https://evil.example/x.png)", "<a href='https://evil.example'>",
    "<link rel=stylesheet href=//evil.example>", "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<base href=//evil.example>", "<form action=//evil.example><button>", "<object data=//evil.example>",
    "<embed src=//evil.example>", "<style>@import '//evil.example'</style>", "url(https://evil.example)",
    "<math><mi//xlink:href='data:x,<script>'>", "<!--<img src=x onerror=alert(1)>-->", "<![CDATA[<script>x</script>]]>",
    "&lt;script&gt;x&lt;/script&gt;", "&#60;script&#62;", "{{ 7 * 7 }}{% for x in y %}", "${7*7}<%= 7*7 %>",
    "| a | b |\n|---|---|\n`x`", "# heading\n***\n> quote", "\x1b[31mred\x1b[0m\x1b]8;;https://evil.example\x07",
    "\u202egnp.exe\u202c", "\u2066left\u2069 \u200f\u200b", "nul\x00bell\x07back\x08cr\r", "\x9b31m\x85\u2028\ufeff",
]  # fmt: skip


def score_rows(html: str) -> Iterator[list[str]]:
    """The score table's cells, each split in its figure and the smaller text below it."""
    body = html.split('<table class="scores')[1].split("<tbody")[1].split("</tbody>")[0]
    for row in body.split("<tr")[1:]:
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row.split("<svg")[0], re.S)
        yield [re.sub("<[^>]+>", "", part).replace("−", "-") for cell in cells for part in cell.split("<small>")]


def hidden_characters(text: str) -> set[str]:
    joiners = "\u200c\u200d"
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t" + joiners}
