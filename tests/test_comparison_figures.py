"""The figures of a comparison: what they join, where their marks stand, and that every eye can tell them apart."""

from __future__ import annotations

import math
import re
from itertools import combinations
from pathlib import Path
from statistics import fmean
from xml.etree import ElementTree

import pytest
from comparison_runs import comparison, draw, write_comparison
from pages import Page, contrast, linear_light, tables, themes

from inlay.tuner.comparison.page import page, write_pages
from inlay.tuner.comparison.page.files import read_files
from inlay.tuner.comparison.page.marks import BASE_HUE, HUES
from inlay.tuner.comparison.page.tradeoff import draw_tradeoff, tradeoffs
from inlay.tuner.comparison.standing import stand
from inlay.tuner.report import page as run_page

SHARED_CSS = (Path(run_page.__file__).parent / "page.css").read_text(encoding="utf-8")
OWN_CSS = (Path(page.__file__).parent / "comparison.css").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the page of a comparison of six methods, the base, and rows that were not measured."""
    folder = write_comparison(tmp_path_factory.mktemp("drawn"), comparison())
    return folder, write_pages(folder).read_text(encoding="utf-8")


def test_the_front_joins_only_rows_that_are_apart(tmp_path: Path) -> None:
    """Cheapest first: ia3; vera and oft tie with it; lora is ahead of it; dora ties with lora; prefix is behind."""
    files = read_files(write_comparison(tmp_path, comparison()))
    by_parameters, *_ = tradeoffs(files, "rougeL")
    assert by_parameters.front == ["ia3", "lora r16"]
    assert tradeoffs(files, "distinct2")[0].front == []  # no direction is better
    lower = tradeoffs(files, "perplexity")[0]
    assert lower.front == ["ia3", "dora r16"]  # lora shares a group with ia3 there
    panel = draw_tradeoff(files.record, by_parameters, "rougeL")
    corners = re.search(r'<polyline class="front" points="([^"]*)"', panel.picture)[1].split()
    marks = re.findall(r'<svg x="([\d.]+)" y="([\d.]+)"><path class="mark', panel.picture)
    assert set(corners) <= {f"{x},{y}" for x, y in marks}
    assert len(marks) == 6
    assert panel.unnamed == 0


def test_full_fine_tuning_is_a_reference_with_a_cost(tmp_path: Path) -> None:
    record = comparison()
    full = record.rows[2].model_copy(update={"kind": "full", "label": "full"})
    record = record.model_copy(update={"rows": [*record.rows[:2], full, *record.rows[3:]]})
    standing = stand(record, "rougeL")
    assert [row.label for row in standing.references] == ["full", "base"]
    assert "full" not in [row.label for row in standing.ranked]
    files = read_files(write_comparison(tmp_path, record))
    assert "full" in [point.row.label for point in tradeoffs(files, "rougeL")[0].points]
    html = draw(tmp_path / "page", record)
    assert "reference: every weight trained" in html.split('<tbody role="rowgroup" class="references">')[1][:400]
    assert 'class="reference full"' not in html  # a line across the figure is for what was not trained


def test_bars_of_a_cost_reach_from_the_least_to_the_most_seed(tmp_path: Path) -> None:
    files = read_files(write_comparison(tmp_path, comparison()))
    time = tradeoffs(files, "rougeL")[2]
    for point in time.points:
        seconds = [cell.record.train.seconds for cell in files.cells[point.row.label]]
        assert [60 * end for end in point.ends] == pytest.approx([min(seconds), max(seconds)])
        assert 60 * point.cost == pytest.approx(point.row.cost.train_seconds)


def test_the_search_rings_what_was_chosen(drawn: tuple[Path, str]) -> None:
    section = drawn[1].split('id="search"')[1].split("</section>")[0]
    assert section.count('class="ring"') == 6
    assert section.count('class="cross"') == 1  # the failed trial of lora
    assert len(re.findall("At the edge", section)) == 2
    rows = tables(section, "<table>")
    assert ["lora r16", "train.learning_rate 0.003", "-", "40", "failed: the loss is not a number"] in rows
    assert sum(cells[4] == "chosen" for cells in rows) == 6
    assert len(rows) == 24


def test_curves_are_means_over_seeds(drawn: tuple[Path, str]) -> None:
    files = read_files(drawn[0])
    losses = [cell.steps[-1].loss for cell in files.cells["vera r256"]]
    section = Page(drawn[1]).text("figcaption")
    assert f"to {fmean(losses):.3g} at step 120; validation" in section
    picture = re.search(r'<svg [^>]*aria-labelledby="curve-3-title.*?</svg>', drawn[1], re.S)[0]
    band = re.search(r'<polygon class="band[^"]*" points="([^"]*)"', picture)[1].split()
    line = re.search(r'<polyline class="thin hue-\d" points="([^"]*)"', picture)[1].split()
    high, low = band[len(line) - 1], band[len(line)]
    assert float(high.split(",")[1]) < float(line[-1].split(",")[1]) < float(low.split(",")[1])


def test_figures_for_papers_hold_their_labels_as_text(drawn: tuple[Path, str]) -> None:
    for name in ("quality", "against-parameters", "against-memory", "against-time"):
        svg = ElementTree.parse(drawn[0] / f"figures/{name}.svg").getroot()
        words = {"".join(text.itertext()).strip() for text in svg.iter("{http://www.w3.org/2000/svg}text")}
        assert {row.label for row in stand(comparison(), "rougeL").placed} <= words
        assert (drawn[0] / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        source = (drawn[0] / f"figures/{name}.svg").read_text(encoding="utf-8")
        assert "<dc:date>" not in source


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_contrast(theme: str) -> None:
    paper = themes(SHARED_CSS)[theme]["paper"]
    assert all(contrast(hue, paper) >= 3 for hue in (*HUES, BASE_HUE))
    assert not set(re.findall(r"#[0-9a-fA-F]{3,8}\b", OWN_CSS)) - {BASE_HUE}, "a colour outside the tested ones"


# Machado, Oliveira and Fernandes (2009), severity 1, on linear light
VISIONS = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def lab(colour: str, vision: str) -> tuple[float, float, float]:
    """CIE L*a*b* (D65) of a colour as it is seen."""
    light = linear_light(colour)
    seen = [min(max(sum(f * s for f, s in zip(row, light, strict=True)), 0.0), 1.0) for row in VISIONS[vision]]
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    x, y, z = (
        (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116)
        for t in (sum(f * s for f, s in zip(row, seen, strict=True)) / w for row, w in zip(to_xyz, white, strict=True))
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("vision", VISIONS)
def test_hues_are_told_apart_by_every_colour_vision(vision: str) -> None:
    distances = [math.dist(lab(one, vision), lab(other, vision)) for one, other in combinations(HUES, 2)]
    assert min(distances) >= 16.5
    # the measure can fail: two greens of equal lightness
    assert math.dist(lab("#009e73", vision), lab("#009e78", vision)) < 16.5
