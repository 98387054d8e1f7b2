"""The comparison's page: what it shows, that it is safe to open, and that everybody can read it."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlparse

import pytest
from comparison_runs import comparison, draw, write_comparison
from pages import Page, block, tables
from report_runs import PAYLOADS, hidden_characters

from inlay.tuner.comparison.page import write_pages
from inlay.tuner.comparison.records import ComparisonRecord, PairRecord
from inlay.tuner.comparison.standing import stand
from inlay.tuner.problems import RequestError


def assert_printed(text: str, true: float, width: float | None) -> None:
    """`text` is `true` to a last digit that an interval of `width` earns: its two leading digits."""
    number = text.split()[0]
    unit = 10.0 ** -len(number.partition(".")[2])
    if width:
        assert 9.95 <= width / unit < 99.5 or unit == 1, f"{text} has more or fewer digits than {width} earns"
    assert float(number.replace(",", "")) == pytest.approx(true, abs=unit / 2 + 1e-9)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the page of a comparison of six methods, the base, and rows that were not measured."""
    folder = write_comparison(tmp_path_factory.mktemp("drawn"), comparison())
    return folder, write_pages(folder).read_text(encoding="utf-8")


def test_the_heading_is_the_finding_and_the_sentences_follow_the_figure(drawn: tuple[Path, str]) -> None:
    found, record = Page(drawn[1]), comparison()
    assert found.text("h1") == record.heading
    first = drawn[1][drawn[1].index('id="quality"') : drawn[1].index('id="numbers"')]
    for said in (*record.sentences, *record.protocol, "dequantized targets", "A difference of 0.82 points"):
        assert said in first
    assert "6 trained rows × 3 seeds, scored on 40 rows of test" in found.text("p")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_estimate_is_the_record_s(drawn: tuple[Path, str], number: int) -> None:
    record = ComparisonRecord.model_validate_json((drawn[0] / "comparison.json").read_text())
    assert ComparisonRecord.model_validate(block(drawn[1], "record")) == record
    score = list(record.score_info)[number - 1]
    rows = {row.label: row.scores[score] for row in record.rows if score in row.scores}
    figure = drawn[1].split(f'id="quality-{number}"')[1]
    printed = tables(figure, '<table class="quality"')
    column = {cells[0].split(" /")[0]: cells[number] for cells in tables(drawn[1], 'id="scores"') if len(cells) > 2}
    sign = 1 if record.score_info[score].higher_is_better is False else -1
    ranked = sorted(
        (label for label in rows if label not in ("base", "lora short")), key=lambda n: sign * rows[n].value
    )
    assert [cells[0].split(" /")[0] for cells in printed] == [*ranked, "base"]
    for label, _, mean_and_ends, group in printed:
        estimate = rows[label.split(" /")[0]]
        mean, ends = mean_and_ends.split(" /")
        width = estimate.ci95[1] - estimate.ci95[0]
        for text, true in zip([mean, *ends.split(" to ")], (estimate.value, *estimate.ci95), strict=True):
            assert_printed(text, true, width)
        assert group == (estimate.group or "-")
        assert column[label.split(" /")[0]].replace(estimate.group, "").split() == f"{mean} /{ends}".split()


def test_seeds_intervals_and_base_stand_at_their_values(drawn: tuple[Path, str]) -> None:
    """Places in a cell of the figure, turned back to scores by two ticks of its axis."""
    record = comparison()
    figure = drawn[1].split('id="quality-1"')[1].split("</table>")[0]
    axis, *cells = re.findall(r'<svg class="axis-row".*?</svg>|<td role="cell" class="picture">.*?</td>', figure, re.S)
    ticks = [(float(x), float(tick)) for x, tick in re.findall(r'x="([\d.]+)%"[^>]*>([\d.]+)</text>', axis)]
    (x1, v1), (x2, v2) = ticks[0], ticks[-1]

    def score(x: str) -> float:
        return v1 + (float(x) - x1) * (v2 - v1) / (x2 - x1)

    ranked = stand(record, "rougeL").ranked
    for row, cell in zip(ranked, cells, strict=False):
        estimate = row.scores["rougeL"]
        seeds = re.findall(r'<svg x="([\d.]+)%" y="[^"]*"><path class="seed', cell)
        assert sorted(score(x) for x in seeds) == pytest.approx(sorted(estimate.seeds), abs=0.01)
        low, high = re.search(r'class="bar hue-\d" x1="([\d.]+)%" y1="[^"]*" x2="([\d.]+)%"', cell).groups()
        assert (score(low), score(high)) == pytest.approx(estimate.ci95, abs=0.01)
        mean = re.search(r'<svg x="([\d.]+)%" y="[^"]*"><path class="mark hue', cell)[1]
        assert score(mean) == pytest.approx(estimate.value, abs=0.01)
        base = re.search(r'class="reference base" x1="([\d.]+)%"', cell)[1]
        assert score(base) == pytest.approx(record.rows[6].scores["rougeL"].value, abs=0.01)


def test_rules_stand_between_rows_that_share_no_group(drawn: tuple[Path, str]) -> None:
    figure = drawn[1].split('id="quality-1"')[1].split("</table>")[0]
    ruled = re.findall(r'<tr role="row" class="rule">\s*<th[^>]*><bdi>(.*?)</bdi>', figure)
    assert ruled == ["prefix 20"]  # a, a, ab, b, b | c


def test_every_difference_is_the_record_s(drawn: tuple[Path, str]) -> None:
    record = comparison()
    known = {(pair.a, pair.b): pair for pair in record.pairs if pair.score == "rougeL"}
    labels = [row.label for row in stand(record, "rougeL").placed]
    printed = tables(drawn[1], '<table class="matrix')
    assert [cells[0] for cells in printed] == labels[:-1]
    seen = 0
    for place, (label, *cells) in enumerate(printed):
        for other, cell in zip(labels[1:], cells, strict=True):
            if labels.index(other) <= place:
                assert cell == ""
                continue
            pair = known[label, other]
            value, ends, verdict = cell.split(" /")
            width = pair.ci95[1] - pair.ci95[0]
            for text, true in zip([value, *ends.split(" to ")], (pair.value, *pair.ci95), strict=True):
                assert_printed(text, true, width)
            assert verdict == ("better, p 0.0061" if pair.apart else "tie, p 0.63")
            seen += 1
    assert seen == len(known)
    assert 'id="pair-dora-r16-lora-r16"' in drawn[1]


def test_a_pair_stored_the_other_way_round_is_turned(tmp_path: Path) -> None:
    record = comparison(methods=2, seeds=2, examples=4, failures=False)
    better, worse = record.rows[0], record.rows[1]
    stored = PairRecord(
        a=worse.label, b=better.label, score="perplexity", value=25.0, ci95=(10.0, 60.0), unit="%", p=0.01,
        adjusted=0.02, apart=True, claim="seeds",
    )  # fmt: skip
    points = stored.model_copy(update={"score": "rougeL", "value": -2.0, "ci95": (-3.0, -1.0), "unit": "points"})
    html = draw(tmp_path, record.model_copy(update={"pairs": [stored, points]}))
    assert tables(html, '<table class="matrix')[0][1] == "+2.0 /-1.0 to +3.0 /better, p 0.02".replace("-1.0", "+1.0")
    # a is 25 % above b, so b is 20 % below a: 1 - 1 / 1.25
    turned = tables(html[html.index("perplexity, row minus column") :], '<table class="matrix')[0][1]
    assert turned == "-20 % /-38 to -9 /better, p 0.02"


def test_every_cost_is_the_record_s(drawn: tuple[Path, str]) -> None:
    record = comparison()
    rows = {cells[0]: cells[1:] for cells in tables(drawn[1], 'id="costs"')}
    assert list(rows) == [row.label for row in stand(record, "rougeL").ranked]
    lora, cost = rows["lora r16"], record.rows[1].cost
    assert lora[0] == f"{cost.trainable_parameters:,}"
    assert lora[1] == "9.77 MB"
    assert lora[2] == "-"
    assert rows["oft b32"][2] == "21.0 MB"
    assert lora[3:8] == ["3 min 35 s", "1,850", "1.82 GB", "47 s", "912 MB"]
    assert lora[8:10] == ["21.7 ms", "19.9 ms"]
    assert rows["prefix 20"][9] == "-"  # cannot be merged
    assert lora[10] == "+0.022 /+0.004 to +0.040"


def test_rows_without_a_place_keep_their_reason(drawn: tuple[Path, str]) -> None:
    text = Page(drawn[1]).text("table")
    for reason in (
        "failed: out of memory at step 1: needs 58 GB, has 24",
        "refused: needs plain layers, the base is in nf4",
        "not comparable: saw 960 rows, the others 1,920",
    ):
        assert text.count(reason) == 2  # under the figure, and under the numbers
    assert "full fine-tune" not in re.findall(r"<text[^>]*>([^<]*)</text>", drawn[1])


@cache
def clean_page() -> Page:
    with tempfile.TemporaryDirectory() as folder:
        return Page(draw(Path(folder), comparison(methods=2, seeds=2, examples=3, text="x"), "x"))


def kinds(found: Page) -> list[str]:
    """Elements in order, without the names in figures, for which there may be no room, and without the `span`s that
    keep a hyphenated word of the heading on one line."""
    return [tag for tag, _ in found.elements if tag not in ("text", "span")]


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_x13_comparison_escapes(payload: str, tmp_path: Path) -> None:
    html = draw(tmp_path, comparison(methods=2, seeds=2, examples=3, text=payload), payload)
    found, clean = Page(html), clean_page()
    # the planted text makes no element, and no attribute, that harmless text does not make
    assert kinds(found) == kinds(clean)
    assert {frozenset(names) for _, names in found.elements} <= {frozenset(names) for _, names in clean.elements}
    assert found.text("style") == clean.text("style")
    assert found.all("script") == clean.all("script")
    assert found.all("meta")[:4] == clean.all("meta")[:4]
    assert not hidden_characters(html)
    assert block(html, "record")["heading"] == comparison(text=payload).heading


def test_the_policy_allows_the_page_s_one_script_and_nothing_from_outside(drawn: tuple[Path, str]) -> None:
    found = Page(drawn[1])
    scripts = re.findall(r"<script>(.*?)</script>", drawn[1], re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert found.all("meta")[1]["content"] == (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    )
    assert [attributes.get("type") for attributes in found.all("script")] == ["application/json"] * 2 + [None]
    for tag, attributes in found.elements:
        assert not any(name.startswith("on") or name in ("src", "srcset", "action", "style") for name in attributes)
        link = urlparse(attributes.get("href") or "")
        assert not link.scheme
        assert not link.netloc
        assert not link.path or (tag == "a" and (drawn[0] / link.path).is_file())
    for forbidden in ("fetch(", "XMLHttpRequest", "import(", "innerHTML", "eval(", "document.write", "insertAdjacent"):
        assert forbidden not in scripts[0]
    assert "url(" not in found.text("style")
    assert "@import" not in found.text("style")


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    folders = [write_comparison(tmp_path / name, comparison(methods=3, seeds=2, examples=4)) for name in ("a", "b")]
    for folder in folders:
        write_pages(folder)
    one, other = ({path.relative_to(f): path.read_bytes() for path in f.rglob("*") if path.is_file()} for f in folders)
    assert one == other
    names = {str(name) for name in one if "cells" not in str(name)}
    figures = {
        f"figures/{n}.{s}"
        for n in ("quality", *map("against-{}".format, ("parameters", "memory", "time")))
        for s in ("svg", "png")
    }
    assert names == {
        "comparison.json",
        "comparison.html",
        "comparison.csv",
        "comparison.md",
        "comparison.tex",
        *figures,
    }


def test_a_folder_that_is_no_comparison_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"holds no comparison\.json"):
        write_pages(tmp_path)
    folder = write_comparison(tmp_path, comparison(methods=1, seeds=1, examples=2))
    before = write_pages(folder).read_text()
    (folder / "cells/row0-0/run.json").unlink()
    with pytest.raises(RequestError, match=r"row0-0` holds no run\.json"):
        write_pages(folder)
    assert (folder / "comparison.html").read_text() == before
    (folder / "comparison.json").write_text('{"schema_version": 99}')
    with pytest.raises(RequestError, match=r"comparison\.json has schema version 99"):
        write_pages(folder)


def test_pages_import_nothing_heavy() -> None:
    code = "import inlay.tuner.comparison.page, inlay.tuner.comparison.terminal, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "datasets", "numpy", "matplotlib"} & set(loaded.stdout.split())


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(comparison(), id="six"),
        pytest.param(comparison(methods=1, failures=False), id="one"),
        pytest.param(comparison(methods=40, examples=6), id="forty"),
        pytest.param(comparison(seeds=1, search=False), id="one seed"),
        pytest.param(comparison(intervals=False), id="no intervals"),
        pytest.param(comparison(methods=0), id="nothing trained"),
        pytest.param(comparison(text=" with a label that goes on and on " + "x" * 80), id="long labels"),
    ],
)
def test_page_can_be_read_without_eyes_or_mouse(record: ComparisonRecord, tmp_path: Path) -> None:
    html = draw(tmp_path, record)
    found = Page(html)
    assert found.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"][1:] for link in found.all("a") if link["href"].startswith("#")} <= set(ids)
    assert len(found.all("caption")) == len(found.all("table"))
    assert all("scope" in attributes for attributes in found.all("th"))
    for svg in found.all("svg"):
        if "role" in svg:
            assert set(svg["aria-labelledby"].split()) <= set(ids)
        else:  # the axis above the figure, and the inner ones that move a mark
            assert svg.get("aria-hidden") == "true" or "class" not in svg
    for region in (attributes for attributes in found.all("div") if attributes.get("class") == "scroll"):
        assert region["tabindex"] == "0"
        assert region.get("aria-labelledby") in ids or region.get("aria-label")
    assert len(html) < 2_500_000
    assert "None" not in found.text("table")
    assert not re.search(r"\b(nan|inf)\b", re.sub("<script.*</script>", "", html, flags=re.S), re.IGNORECASE)


def test_what_was_not_measured_has_no_section(tmp_path: Path) -> None:
    html = draw(tmp_path, comparison(methods=1, seeds=1, search=False, failures=False, intervals=False))
    links = [link["href"] for link in Page(html).all("a")]
    assert "#search" not in links
    assert (
        '<path class="seed' not in html.split('<table class="quality"')[1].split("</table>")[0]
    )  # one seed is the mean itself
    assert tables(html, '<table class="quality"')[0][2].endswith(" /-")


def test_a_comparison_that_was_stopped_says_so(tmp_path: Path) -> None:
    """Nothing is scored before all is done: no row has a place yet, and nothing is known of the scores."""
    record = comparison(methods=2, seeds=2, examples=3)
    nothing = {"cells": [], "scores": {}, "cost": None, "forgetting": None, "trials": []}
    rows = [row.model_copy(update={**nothing, "status": "waiting"}) for row in record.rows[:3]]
    stopped = {"status": "interrupted", "reason": "stopped by Ctrl-C", "rows": rows, "pairs": [], "score_info": {}}
    html = draw(tmp_path, record.model_copy(update={**stopped, "sentences": [], "detectable": None}))
    assert "<strong>Interrupted:</strong> <bdi>stopped by Ctrl-C</bdi>" in html
    assert ["lora r16", "waiting"] in tables(html, 'id="scores"')
    links = {link["href"] for link in Page(html).all("a")}
    assert not links & {"#differences", "#against", "#search", "#curves", "#examples"}


def test_a_base_far_away_does_not_squeeze_the_rows(tmp_path: Path) -> None:
    record = comparison(methods=3, seeds=2, examples=3)
    base = record.rows[3]
    far = base.scores["perplexity"].model_copy(update={"value": 1082.4, "seeds": [1082.4], "ci95": (1051.0, 1113.5)})
    moved = base.model_copy(update={"scores": {**base.scores, "perplexity": far}})
    html = draw(tmp_path, record.model_copy(update={"rows": [*record.rows[:3], moved, *record.rows[4:]]}))
    assert "base (1082) lies outside the axis." in html
    axis = re.findall(r'<svg class="axis-row".*?</svg>', html)[1]
    assert max(float(tick) for tick in re.findall(r">([\d.]+)</text>", axis)) < 50


def test_data_in_other_scripts_chooses_its_direction(tmp_path: Path) -> None:
    text = " ارتفعت أسعار النفط"
    record = comparison(methods=2, seeds=2, examples=3, text=text).model_copy(update={"language": "ar"})
    html = draw(tmp_path, record, text)
    assert f"<bdi>dora r16{text}</bdi>" in html
    assert '<p class="data" dir="auto" lang="ar">' in html
    assert block(html, "data")["language"] == "ar"
