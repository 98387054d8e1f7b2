"""A comparison as CSV, Markdown, LaTeX, and as a table in the terminal."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from comparison_runs import comparison
from report_runs import PAYLOADS, hidden_characters

from inlay.tuner.comparison.page import tables
from inlay.tuner.comparison.records import ComparisonRecord
from inlay.tuner.comparison.terminal import table
from inlay.tuner.report.text import columns


def lines(record: ComparisonRecord) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tables.as_csv(record))))


def test_csv_holds_every_number_in_full() -> None:
    record = comparison()
    found = lines(record)
    for row in record.rows:
        own = [line for line in found if line["label"] == row.label]
        assert len(own) == (sum(len(estimate.seeds) for estimate in row.scores.values()) or 1)
        for score, estimate in row.scores.items():
            of_score = [line for line in own if line["score"] == score]
            assert [float(line["value"]) for line in of_score] == estimate.seeds
            named = row.seeds if len(row.seeds) == len(estimate.seeds) else [""]  # not said of an incomparable row
            assert [line["seed"] for line in of_score] == [str(seed) for seed in named]
            assert {float(line["mean"]) for line in of_score} == {estimate.value}
            assert {(float(line["ci95_low"]), float(line["ci95_high"])) for line in of_score} == {estimate.ci95}
            assert {line["group"] for line in of_score} == {estimate.group}
        for name, value in (row.cost.model_dump() if row.cost else {}).items():
            assert {line[name] for line in own} == {"" if value is None else str(value)}
        if row.forgetting:
            assert float(own[0]["forgetting"]) == row.forgetting.value
    failed = next(line for line in found if line["status"] == "failed")
    assert failed["reason"] == "out of memory at step 1: needs 58 GB, has 24"
    assert failed["mean"] == failed["train_seconds"] == ""


def test_csv_has_empty_cells_for_what_is_not_known() -> None:
    line = lines(comparison(intervals=False))[0]
    assert line["ci95_low"] == line["ci95_high"] == ""
    assert line["mean"]


@pytest.mark.parametrize("payload", [*PAYLOADS, 'a "quoted", text', "=1+1", "two\nlines"])
def test_x12_csv_is_well_formed_and_holds_no_formula(payload: str) -> None:
    record = comparison(methods=1, seeds=2, text=payload)
    first = record.rows[0].model_copy(update={"label": payload})
    text = tables.as_csv(record.model_copy(update={"rows": [first, *record.rows[1:]]}))
    rows = list(csv.reader(io.StringIO(text)))
    assert {len(row) for row in rows} == {len(tables.COLUMNS)}
    assert not hidden_characters(text)
    numbers = re.compile(r"-?[\d.]+(e[+-]?\d+)?")
    assert not [cell for row in rows for cell in row if cell[:1] in tuple("=+-@") and not numbers.fullmatch(cell)]


def test_markdown_is_a_table_in_the_order_of_the_page() -> None:
    record = comparison()
    found = [line.strip("| ").split(" | ") for line in tables.as_markdown(record).splitlines() if line.startswith("|")]
    assert {len(cells) for cells in found[1:]} == {7}
    assert [cells[0] for cells in found[2:]] == [row.label for row in record.rows[:7]]
    assert found[3] == ["lora r16", "15.8", "15.4 to 16.4", "a", "4,884,481", "3 min 35 s", "1.82 GB"]
    text = tables.as_markdown(record)
    assert all(sentence in text for sentence in record.sentences)
    assert "* full fine-tune: failed: out of memory at step 1: needs 58 GB, has 24" in text
    assert "6 methods, 3 seeds, 40 rows of test" in text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_x13_markdown_and_latex_escape(payload: str) -> None:
    record, clean = (comparison(methods=2, seeds=1, text=text) for text in (payload, "x"))
    markdown = tables.as_markdown(record)
    assert not re.findall(r"(?<!\\)[<>`]", markdown)
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("|")]
    assert bars == [8] * len(bars)
    latex = tables.as_latex(record)
    assert not hidden_characters(markdown + latex)
    # as many ends of cells and of rows, and as many comments, as harmless text has
    for mark in (r"(?<!\\)&", r"\\\\$", r"(?<!\\)%", r"(?<!\\)\$", r"(?<![\\])#"):
        body = [re.findall(mark, text.partition("\n")[2], re.M) for text in (latex, tables.as_latex(clean))]
        assert len(body[0]) == len(body[1]), mark
    unescaped = re.sub(r"\\[{}]", "", latex)
    assert unescaped.count("{") == unescaped.count("}")


def test_latex_separates_groups_and_references() -> None:
    body = tables.as_latex(comparison()).split(r"\midrule")
    assert body[1].count(r"\addlinespace") == 1
    assert body[1].index("ia3") < body[1].index(r"\addlinespace") < body[1].index("prefix 20")
    assert body[2].strip().startswith("base & 11.4 & 10.9 to 11.9 & - & -")
    assert r"full fine-tune & \multicolumn{6}{l}{failed: out of memory" in body[3]


# ---- the terminal


def test_the_terminal_shows_groups_intervals_and_reasons() -> None:
    record = comparison()
    text = table(record, Path("runs/dialogue-methods-4f2a91c"))
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert re.match(r"lora r16 +15\.8 +15\.4 to 16\.4 +a +3\.58 +9\.77 ", rows["lora r16"])
    assert rows["full fine-tune"].endswith("failed: out of memory at step 1: needs 58 GB, has 24")
    at = text.splitlines().index
    assert text.splitlines()[at(rows["prefix 20"]) - 1] == ""  # it shares no group with the row above
    assert text.splitlines()[at(rows["ia3"]) + 1] == ""
    assert text.splitlines()[at(rows["lora r16"]) - 1] == rows["dora r16"]
    assert text.startswith(record.heading[:60])
    assert "page    runs/dialogue-methods-4f2a91c/comparison.html" in text
    assert all(" ".join(text.split()).count(sentence) == 1 for sentence in record.sentences)


def test_whiskers_stand_at_their_values() -> None:
    record = comparison()
    text = table(record, Path("runs/x"))
    head = next(line for line in text.splitlines() if "95 % interval" in line)
    middle = {}
    for row in record.rows[:7]:
        line = next(line for line in text.splitlines() if line.startswith(row.label))
        plot = line.ljust(80)[head.index("MB") + 4 :]
        middle[row.label] = plot.index("o")
        assert re.fullmatch(r"[ .]*-*o-*[ .]*", plot)
    values = {row.label: row.scores["rougeL"].value for row in record.rows[:7]}
    places = [middle[label] for label in sorted(values, key=values.get)]
    assert places == sorted(places)
    spread = (max(middle.values()) - min(middle.values())) / (max(values.values()) - min(values.values()))
    for label, place in middle.items():
        assert place - middle["base"] == pytest.approx(spread * (values[label] - values["base"]), abs=1)


@pytest.mark.parametrize(
    "record",
    [
        comparison(),
        comparison(methods=1, failures=False),
        comparison(methods=40),
        comparison(methods=0),
        comparison(intervals=False, seeds=1, search=False),
        *(comparison(methods=3, text=payload) for payload in PAYLOADS),
        comparison(text=" with a label that goes on and on"),
        comparison(text=" 股市上涨，投资者感到高兴"),
    ],
)
@pytest.mark.parametrize("width", [80, 100])
def test_x13_terminal_fits_and_escapes(record: ComparisonRecord, width: int) -> None:
    text = table(record, Path("runs/x"), width)
    assert max(columns(line) for line in text.splitlines()) <= width
    assert not hidden_characters(text)


def test_a_comparison_that_was_stopped_says_so_in_the_terminal() -> None:
    record = comparison(methods=2).model_copy(update={"status": "interrupted", "reason": "stopped by Ctrl-C"})
    assert "interrupted: stopped by Ctrl-C" in table(record, Path("runs/x"))
