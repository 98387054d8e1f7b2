"""The run's page: what it shows, that it is safe to open, and that everybody can read it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from pages import Page, contrast, themes
from report_runs import (
    PAYLOADS,
    SCORES,
    classified,
    draw,
    hidden_characters,
    metrics,
    predictions,
    record,
    score_rows,
    write_run,
)

from inlay.tuner.problems import RequestError
from inlay.tuner.records import Metrics, RunRecord
from inlay.tuner.report import page, replies, write_page
from inlay.tuner.report.scores import sentence
from inlay.tuner.report.terminal import print_table, table

CSS = (Path(page.__file__).parent / "page.css").read_text(encoding="utf-8")


@cache
def clean_page(make: Callable[[str], RunRecord]) -> Page:
    with tempfile.TemporaryDirectory() as folder:
        return Page(draw(Path(folder), make("x"), text="x"))


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
@pytest.mark.parametrize("make", [record, classified])
def test_x13_report_escapes(payload: str, make: Callable[[str], RunRecord], tmp_path: Path) -> None:
    html = draw(tmp_path, make(payload), text=payload)
    found, clean = Page(html), clean_page(make)
    # the planted text makes no element, and no attribute, that harmless text does not make
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in clean.elements]
    assert [list(names) for _, names in found.elements] == [list(names) for _, names in clean.elements]
    assert not found.all("script")
    for _, attributes in found.elements:
        assert not any(name.startswith("on") or name in ("src", "action", "data", "style") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert found.text("style") == clean.text("style")
    assert found.all("meta")[1] == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    }
    assert not hidden_characters(html)


def test_every_printed_score_comes_from_the_record(tmp_path: Path) -> None:
    rows = list(score_rows(draw(tmp_path, record())))
    assert [row[0] for row in rows] == ["ROUGE-L", "BLEU", "perplexity", "bits per byte", "empty replies"]
    for row, (_, higher, base, tuned, change, change_unit, verdict) in zip(rows, SCORES.values(), strict=True):
        _, direction, base_text, base_ends, tuned_text, tuned_ends, change_text, change_ends, verdict_text = row
        assert ("higher" in direction) == higher
        assert verdict_text == verdict
        assert change_text.endswith(" " + change_unit) == (change_unit in ("%", "pp"))
        cells = [(base_text, base_ends, base), (tuned_text, tuned_ends, tuned), (change_text, change_ends, change)]
        for value, ends, (expected, low, high) in cells:
            number = value.split()[0]
            unit = 10.0 ** -len(number.partition(".")[2])
            assert 9.95 <= (high - low) / unit < 99.5 or unit == 1, f"{value} shows more or less than {low}..{high}"
            for printed, true in zip([number, *ends.split(" to ")], (expected, low, high), strict=True):
                assert float(printed) == pytest.approx(true, abs=unit / 2 + 1e-9)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_contrast(theme: str) -> None:
    colours = themes(CSS)[theme]

    def ratio(front: str, back: str) -> float:
        return contrast(colours[front], colours[back])

    assert all(ratio(text, back) >= 4.5 for text in ("ink", "muted") for back in ("paper", "tint"))
    assert all(ratio(mark, "paper") >= 3 for mark in ("accent", "base", "focus"))
    assert ratio("accent", "tint") >= 3  # the line under trained text
    rules = re.sub(r":root \{.*?\}", "", CSS, flags=re.S)
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b", rules), "a colour outside the tested variables"


@pytest.mark.parametrize("make", [record, classified])
def test_page_can_be_read_without_eyes_or_mouse(make: Callable[[], RunRecord], tmp_path: Path) -> None:
    found = Page(draw(tmp_path, make()))
    assert found.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [attributes["href"] for attributes in found.all("a")]
    assert {link[1:] for link in links} <= set(ids)
    assert len(found.all("caption")) == len(found.all("table"))
    assert all("scope" in attributes for attributes in found.all("th"))
    for svg in found.all("svg"):
        assert svg["role"] == "img"
        assert set(svg["aria-labelledby"].split()) <= set(ids)
    for region in (attributes for attributes in found.all("div") if attributes.get("class") == "scroll"):
        assert region["tabindex"] == "0"
        assert region.get("aria-labelledby") in ids or region.get("aria-label")


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    assert draw(tmp_path / "a", record()) == draw(tmp_path / "b", record())
    assert [path.name for path in (tmp_path / "a").glob("*report*")] == ["report.html"]


def test_a_damaged_run_leaves_the_old_page(tmp_path: Path) -> None:
    before = draw(tmp_path, record())
    (tmp_path / "predictions.jsonl").write_text('{"id": 7}\n')
    with pytest.raises(RequestError, match=r"predictions\.jsonl:1 \(id\)"):
        write_page(tmp_path)
    assert (tmp_path / "report.html").read_text() == before


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"holds no run\.json"):
        write_page(tmp_path)
    (tmp_path / "run.json").write_text('{"schema_version": 99}')
    with pytest.raises(RequestError, match="schema version 99"):
        print_table(tmp_path)
    (tmp_path / "run.json").write_text("not json")
    with pytest.raises(RequestError, match=r"run\.json"):
        print_table(tmp_path)


def test_a_log_cut_in_its_last_line_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path, record(), logged=5)
    with (folder / "train.jsonl").open("a") as log:
        log.write('{"step": 60, "epo')
    html = write_page(folder).read_text()
    assert '<th scope="row" class="number">50</th>' in html
    assert '<th scope="row" class="number">60</th>' not in html


def test_a_report_imports_nothing_heavy() -> None:
    code = "import inlay.tuner.report.page, inlay.tuner.report.terminal, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "transformers", "datasets"} & set(loaded.stdout.split())


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        (["better"] * 3, "is better than the base on all 3 scores"),
        (["better", "unclear", "better"], "is better than the base on 2 of 3 scores, unclear on 1"),
        (["better", "worse"], "is worse than the base on 1 of 2 scores, better on 1"),  # a draw is not told as a gain
        (["unclear"], "cannot be told apart from the base: ROUGE-L 27.4 against 11.9"),
        (["same", "same"], "scores the same as the base on both scores"),
    ],
)
def test_heading_says_what_the_intervals_earned(verdicts: list[str], words: str) -> None:
    found = metrics(tuple(SCORES)[: len(verdicts)])
    change = {
        key: one.model_copy(update={"verdict": verdict})
        for (key, one), verdict in zip(found.change.items(), verdicts, strict=True)
    }
    assert words in sentence(record(metrics=found.model_copy(update={"change": change})))


def test_failed_run_says_why_and_shows_no_scores(tmp_path: Path) -> None:
    failed = record(status="failed", reason="out of memory at step 1", metrics=None, eval=None, train=None, data=None)
    found = Page(draw(tmp_path, failed, rows=0, logged=0))
    assert found.text("h1") == "This run failed: Summarization with LoRA on Small-135M (nf4)"
    assert "out of memory at step 1" in found.text("header")
    assert "training- (did not begin)" in found.text("main")
    assert not found.all("svg")
    assert "status  failed: out of memory at step 1" in table(failed, tmp_path)


def test_interrupted_run_says_so_before_its_scores(tmp_path: Path) -> None:
    stopped = record(status="interrupted", reason="stopped by SIGINT", adapter=None)
    heading = Page(draw(tmp_path, stopped, logged=1)).text("h1")
    assert heading.startswith("Interrupted after 500 steps: Summarization with an adapter on Small-135M (nf4) is ")


@pytest.mark.parametrize("method", ["none", "lora"])  # lora: stopped before its first step
def test_untrained_run_shows_the_base_alone(method: str, tmp_path: Path) -> None:
    none = record(
        adapter=record().adapter.model_copy(update={"method": method}),
        train=None,
        metrics=Metrics(base=metrics().base, tuned={}, change={}),
    )
    html = draw(tmp_path, none, logged=0)
    assert next(row[:1] + row[2:] for row in score_rows(html)) == ["ROUGE-L", "11.9", "11.2 to 12.6"]
    assert Page(html).text("h1") == "Summarization by Small-135M (nf4), untrained: ROUGE-L 11.9"
    assert "Ben will come soon" not in html
    assert "trainable parameters" not in html
    assert re.search(r"ROUGE-L +higher +11\.9 +11\.2 to 12\.6\n", table(none, tmp_path))


def test_a_missing_cell_has_its_reason(tmp_path: Path) -> None:
    found = metrics(("bleu", "rougeL"))
    base = {"rougeL": found.base["rougeL"].model_copy(update={"ci95": None, "note": "one example"})}
    change = {"rougeL": found.change["rougeL"].model_copy(update={"ci95": None})}
    run = record(metrics=Metrics(base=base, tuned=found.tuned, change=change))
    bleu, rouge = score_rows(draw(tmp_path, run))
    assert bleu[2:] == ["-", "-", "6.1", "5.4 to 6.9", "-", "-", "not measured"]
    assert rouge[3] == rouge[7] == "-"
    for reason in ("BLEU: not measured for the base", "ROUGE-L: the score of the base has no interval (one example)"):
        assert reason in Page((tmp_path / "report.html").read_text()).text("ul")
        assert f"- {reason}" in table(run, tmp_path)


def test_confusion_and_label_lengths_are_shown(tmp_path: Path) -> None:
    text = Page(draw(tmp_path, classified())).text("section")
    html = (tmp_path / "report.html").read_text()
    row = re.search(r'<tr><th scope="row" dir="auto">world news</th>(.*?)</tr>', html, re.S)[1]
    assert re.findall(r">([^<]+)<", row) == ["1", "40", "3", "44", "90.9 %", "2"]
    assert "Labels are 1 to 4 tokens long" in text


def test_many_labels_show_the_most_frequent_mistakes(tmp_path: Path) -> None:
    html = draw(tmp_path, classified(labels=40))
    assert (
        '<tr><th scope="row" dir="auto">label 38</th><td dir="auto">label 39</td><td class="number">77</td></tr>'
        in html
    )
    assert 'class="confusion"' not in html


def test_rows_are_evenly_spaced_and_not_picked(tmp_path: Path) -> None:
    shown = replies.rows(list(reversed(predictions(61))), trained=True)
    assert [row.id for row in shown] == [f"row-{index * 61 // 20:04d}" for index in range(20)]
    assert "20 of 61 rows, evenly spaced" in draw(tmp_path, record(), rows=61)
    assert "The only row." in draw(tmp_path, record(), rows=1)


LONG = "yes no " * 120 + "yes"


@pytest.mark.parametrize(
    ("references", "reply", "marked"),
    [
        (["Ben will come late."], "Ben will come soon.", ["soon"]),
        (["Ben will come late."], "Ben will come late.", []),
        (["no match", "Ben will come late."], "Ben will come", []),  # the closest reference counts
        (["股市上涨"], "股市下跌", ["下跌"]),
        ([], "anything", []),
        (["same  words"], "same words", []),  # white space is no difference
        ([LONG], f"maybe {LONG}", ["maybe"]),  # however often a word occurs
    ],
)
def test_words_that_the_reference_lacks_are_marked(references: list[str], reply: str, marked: list[str]) -> None:
    row = predictions(1)[0].model_copy(update={"references": references, "prediction": reply})
    pieces = replies.rows([row], trained=True)[0].replies[1].pieces
    assert [piece.text for piece in pieces if piece.differs] == marked
    assert "".join(piece.text for piece in pieces) == reply


def test_data_in_other_scripts_chooses_its_direction(tmp_path: Path) -> None:
    folder = write_run(tmp_path, record(eval=record().eval.model_copy(update={"language": "ar"})))
    row = predictions(1)[0].model_copy(update={"prompt": "ارتفعت أسعار النفط", "prediction": "", "finished": False})
    (folder / "predictions.jsonl").write_text(row.model_dump_json() + "\n", encoding="utf-8")
    html = write_page(folder).read_text(encoding="utf-8")
    assert '<p class="data " dir="auto" lang="ar">ارتفعت أسعار النفط</p>' in html
    assert "(empty reply)" in html
    assert "did not end by itself" in html


def test_what_the_model_saw_marks_the_trained_text(tmp_path: Path) -> None:
    html = draw(tmp_path, record())
    assert 'User: hello\n<mark class="trained">hi</mark></pre>' in html


def test_long_logs_keep_every_validation(tmp_path: Path) -> None:
    html = draw(tmp_path, record(), logged=2000)
    shown = {int(step.replace(",", "")) for step in re.findall(r'<th scope="row" class="number">([0-9,]+)</th>', html)}
    validated = set(range(70, 20_001, 70))
    assert validated | {10, 20_000} <= shown
    assert len(shown - validated) <= 401
    found = Page(html)
    assert f"{len(shown)} of 2,000 logged steps" in found.text("summary")
    assert len(found.all("svg")) == len(SCORES) + 3  # loss, learning rate, and the validation that is not a loss
