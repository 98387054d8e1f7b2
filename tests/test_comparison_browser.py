"""The example browser of the comparison's page, and its script in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from statistics import fmean

import pytest
from comparison_runs import comparison, draw, write_comparison
from pages import Page, block

from inlay.tuner.comparison.page import write_pages
from inlay.tuner.comparison.page.browser import examples
from inlay.tuner.comparison.page.files import read_files
from inlay.tuner.comparison.page.page import draw_page
from inlay.tuner.records import Prediction


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the page of a comparison of six methods, the base, and rows that were not measured."""
    folder = write_comparison(tmp_path_factory.mktemp("drawn"), comparison())
    return folder, write_pages(folder).read_text(encoding="utf-8")


def test_examples_are_joined_by_id(tmp_path: Path) -> None:
    """However the lines of a cell are ordered, and only examples that every seed of every row has."""
    folder = write_comparison(tmp_path, comparison(methods=2, seeds=2, examples=6))
    before = examples(read_files(folder))
    path = folder / "cells/row1-1/predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(lines)))
    assert examples(read_files(folder)).shown == before.shown
    path.write_text("".join(lines[:4]))
    shorter = examples(read_files(folder))
    assert shorter.shown == before.shown[:4]
    assert shorter.total == 4


def test_an_example_has_first_seed_replies_and_mean_scores(drawn: tuple[Path, str]) -> None:
    data = block(drawn[1], "data")
    assert [row["label"] for row in data["rows"]][:2] == ["dora r16", "lora r16"]
    example = data["examples"][7]
    for place, (slug, base) in enumerate([(f"row{number}", False) for number in range(6)] + [("base", True)]):
        folders = [drawn[0] / f"cells/{slug}"] if base else [drawn[0] / f"cells/{slug}-{seed}" for seed in range(3)]
        rows = [Prediction.model_validate_json((f / "predictions.jsonl").read_text().splitlines()[7]) for f in folders]
        assert example["id"] == rows[0].id
        assert example["replies"][place] == (rows[0].base_prediction if base else rows[0].prediction)
        scores = [row.base_scores["rougeL"] if base else row.scores["rougeL"] for row in rows]
        assert example["scores"][0][place] == pytest.approx(fmean(scores), abs=1e-6)
    assert data["scores"] == [{"name": "ROUGE-L", "higher": True}]


def test_without_a_script_the_most_different_examples_can_be_read(drawn: tuple[Path, str]) -> None:
    data = block(drawn[1], "data")

    def gap(example: dict) -> float:
        return max(example["scores"][0]) - min(example["scores"][0])

    expected = sorted(data["examples"], key=lambda example: (-gap(example), example["id"]))[:8]
    assert re.findall(r'<h3 id="still-\d">([^<]*)</h3>', drawn[1]) == [example["id"] for example in expected]
    assert '<div id="browser" hidden>' in drawn[1]


# ---- in a real browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")


def opened(page: Path, address: str, profile: Path) -> str:
    """The document as it is after the page's script has run, with the state that stands in `address`."""
    quiet = ["headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "disable-sync"]
    quiet += ["disable-component-update", "enable-logging=stderr", f"user-data-dir={profile}", "dump-dom"]
    url = f"file://{page}#{address}"
    done = subprocess.run(
        [CHROMIUM, *(f"--{flag}" for flag in quiet), url], capture_output=True, timeout=60, check=True
    )
    said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if "CONSOLE" in line]
    assert said == [], "the script fails, or the policy refuses it"
    return done.stdout.decode("utf-8")


def shown(html: str) -> list[tuple[str, str]]:
    """Id and verdict of each example that is shown."""
    return re.findall(r"<article><h3>([^<]*)<small>([^<]*)</small>", html)


@browser
def test_the_table_sorts_by_any_column(drawn: tuple[Path, str], tmp_path: Path) -> None:
    def order(address: str, table: str) -> list[str]:
        html = opened(drawn[0] / "comparison.html", address, tmp_path)
        found = html[html.index(f'id="{table}"') :].split("</table>")[0]
        assert found.count("aria-sort") == 1
        return re.findall("<bdi>([^<]*)</bdi>", found.split("</thead>")[1].split("</tbody>")[0])

    rows = comparison().rows
    by_time = sorted((row for row in rows if row.cost), key=lambda row: row.cost.train_seconds)
    assert order("sort=costs:train:ascending", "costs") == [row.label for row in by_time]
    assert order("sort=costs:train:descending", "costs") == [row.label for row in reversed(by_time)]
    by_perplexity = sorted(rows[:6], key=lambda row: row.scores["perplexity"].value)
    assert order("sort=scores:perplexity:ascending", "scores") == [row.label for row in by_perplexity]


def clicked(page: Path, selector: str, profile: Path) -> str:
    """The document after a click; the click is made by a script that a copy of the page allows."""
    html = page.read_text(encoding="utf-8")
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    copy = page.with_name("clicked.html")
    script = f"<script>document.querySelector({json.dumps(selector)}).click()</script></body>"
    copy.write_text(html.replace("</body>", script), encoding="utf-8")
    return opened(copy, "", profile)


@browser
def test_a_difference_opens_its_examples(drawn: tuple[Path, str], tmp_path: Path) -> None:
    before = opened(drawn[0] / "comparison.html", "", tmp_path)
    after = clicked(drawn[0] / "comparison.html", "#pair-ia3-prefix-20 a", tmp_path)
    heads = [re.findall(r'<div class="pair"><div><h4 dir="auto">([^<]*)</h4>', html)[0] for html in (before, after)]
    assert heads == ["dora r16", "ia3"]
    assert '<h4 dir="auto">prefix 20</h4>' in after.split("</article>")[0]


@browser
def test_a_click_on_a_head_sorts_and_another_turns_it(drawn: tuple[Path, str], tmp_path: Path) -> None:
    html = clicked(drawn[0] / "comparison.html", '#costs th[data-key="trainable"] button', tmp_path)
    found = html[html.index('id="costs"') :].split("</table>")[0]
    assert re.search('data-key="trainable" aria-sort="ascending"', found)
    assert re.findall("<bdi>([^<]*)</bdi>", found)[0] == "ia3"
    again = clicked(drawn[0] / "comparison.html", '#scores th[data-key="rougeL"] button', tmp_path)
    first = again[again.index('id="scores"') :].split("</tbody>")[0]
    assert 'aria-sort="ascending"' in first  # it was descending, as the page is drawn
    assert re.findall("<bdi>([^<]*)</bdi>", first)[0] == "prefix 20"
    assert 'class="rule"' not in first  # the rules between groups belong to the order of the page


@browser
def test_two_rows_are_compared_on_every_example(drawn: tuple[Path, str], tmp_path: Path) -> None:
    data = block(drawn[1], "data")
    slugs = [row["slug"] for row in data["rows"]]
    a, b = slugs.index("ia3"), slugs.index("dora-r16")
    gaps = {e["id"]: e["scores"][0][a] - e["scores"][0][b] for e in data["examples"]}
    html = opened(drawn[0] / "comparison.html", "a=ia3&b=dora-r16&show=a", tmp_path)
    won = sorted((gap for gap in gaps.values() if gap > 0), reverse=True)
    counts = f"A better {len(won)}, equal {sum(gap == 0 for gap in gaps.values())}, B better"
    assert counts in html
    assert [gaps[id_] for id_, _ in shown(html)] == won
    assert all(verdict.startswith("A better by ") for _, verdict in shown(html))
    assert '<div id="still" hidden="">' in html
    assert 0 < len(won) < 40


@browser
def test_words_that_the_other_reply_lacks_are_marked(drawn: tuple[Path, str], tmp_path: Path) -> None:
    html = opened(drawn[0] / "comparison.html", "a=dora-r16&b=base&show=all&find=row-0001", tmp_path)
    assert [id_ for id_, _ in shown(html)] == ["row-0001"]
    example = block(drawn[1], "data")["examples"][1]
    first, second = html.split('<div class="pair"><div><h4')[1].split("</div><div>")
    for reply, place, other in ((first, 0, 6), (second, 6, 0)):
        text = re.search(r'<p class="data"[^>]*>(.*?)</p>', reply, re.S)[1]
        assert re.sub("<[^>]+>", "", text) == example["replies"][place]
        kept = re.sub("<mark.*?</mark>", "", text).split()
        others = iter(example["replies"][other].split())
        assert all(word in others for word in kept), "what is not marked stands in the other reply, in this order"
        assert len(kept) == len(longest_shared(example["replies"][place].split(), example["replies"][other].split()))


def longest_shared(one: list[str], other: list[str]) -> list[str]:
    """A longest common subsequence, by trying all."""
    if not one or not other:
        return []
    if one[0] == other[0]:
        return [one[0], *longest_shared(one[1:], other[1:])]
    return max(longest_shared(one[1:], other), longest_shared(one, other[1:]), key=len)


@browser
@pytest.mark.parametrize(
    ("one", "other", "marked"),
    [
        ("股市昨日上涨 abc", "股市昨日下跌 abc", (["上涨"], ["下跌"])),
        ("the same", "the same", ([], [])),
        ("a b c", "", (["a b c"], [])),  # an empty reply is said, and the other is new from its first word
    ],
)
def test_marks_in_other_scripts_and_empty_replies(
    one: str, other: str, marked: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    folder = write_comparison(tmp_path / "data", comparison(methods=2, seeds=1, examples=1))
    for row, text in (("row0", one), ("row1", other)):
        path = folder / f"cells/{row}-0/predictions.jsonl"
        line = Prediction.model_validate_json(path.read_text(encoding="utf-8"))
        path.write_text(line.model_copy(update={"prediction": text}).model_dump_json() + "\n", encoding="utf-8")
    page = folder / "comparison.html"
    page.write_text(draw_page(read_files(folder), []), encoding="utf-8")
    pair = opened(page, "a=dora-r16&b=lora-r16", tmp_path / "profile").split('<div class="pair"><div><h4')[1]
    sides = [re.findall('<mark class="differs">([^<]*)</mark>', side) for side in pair.split("</div><div>")[:2]]
    assert tuple(sides) == marked
    assert ("(empty reply)" in pair.split("</article>")[0]) == (not other)


@browser
def test_many_examples_are_paged(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "many", comparison(methods=2, seeds=1, examples=120))
    page = folder / "comparison.html"
    page.write_text(draw(folder, comparison(methods=2, seeds=1, examples=120)), encoding="utf-8")
    ids = [example["id"] for example in block(page.read_text(encoding="utf-8"), "data")["examples"]]
    second = opened(page, "show=all&page=2", tmp_path / "profile")
    assert [id_ for id_, _ in shown(second)] == ids[50:100]
    assert "2 of 3" in second


@browser
def test_data_runs_nothing(tmp_path: Path) -> None:
    text = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
    record = comparison(methods=2, seeds=1, examples=3, text=text)
    page = tmp_path / "page.html"
    page.write_text(draw(tmp_path / "data", record, text), encoding="utf-8")
    html = opened(page, "show=all", tmp_path / "profile")
    assert "<title>owned" not in html
    assert not Page(html).all("img")
    assert len(shown(html)) == 3
