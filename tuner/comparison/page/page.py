"""The comparison's page: one file that opens offline and can be read without a script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from inlay.tuner.comparison.page import browser, costs, curves, differences, quality, search, tables, tradeoff
from inlay.tuner.comparison.page import repeat as repeating
from inlay.tuner.comparison.page.files import ComparisonFiles
from inlay.tuner.comparison.page.marks import HUES
from inlay.tuner.comparison.records import ComparisonRecord, RowRecord
from inlay.tuner.comparison.standing import breaks, detectable, mean_and_interval, reference, scores, stand, state
from inlay.tuner.report.figures import MISSING
from inlay.tuner.report.page import environment, language_tag, style
from inlay.tuner.report.scores import model_name, score_name
from inlay.tuner.report.text import one_line, visible

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class ScoreCell:
    """A row's score as printed; `sort` is the number itself, None where there is none."""

    mean: str
    ends: str
    group: str
    sort: float | None


@dataclass(frozen=True)
class ScoreLine:
    """A row of the table of all scores. `about`: what kind of row it is, or why it has no place."""

    label: str
    about: str
    rule: bool
    cells: list[ScoreCell]

    @property
    def scored(self) -> bool:
        """Whether any score is known."""
        return any(cell.sort is not None for cell in self.cells)


def draw_page(files: ComparisonFiles, figures: Iterable[str]) -> str:
    """The page; `figures` are the names of the files in the folder of figures beside it."""
    record = files.record
    script = (_HERE / "comparison.js").read_text(encoding="utf-8")
    template = environment(_HERE).get_template("comparison.html")
    return template.render(
        record=record,
        style=Markup(style() + (_HERE / "comparison.css").read_text(encoding="utf-8")),
        hues=list(enumerate(HUES, 1)),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        language=language_tag(record.language),
        record_data=Markup(_embedded(record.model_dump(mode="json"))),
        figures=_by_name(figures),
        **_finding(record),
        **_tables(record),
        **_panels(files),
        **_examples(files),
    )


def _finding(record: ComparisonRecord) -> dict[str, object]:
    """The head of the page and its first figure, once for each score."""
    return {
        "heading": _heading(record.heading),
        "model": model_name(record.base),
        "names": [(score, score_name(score)) for score in scores(record)],
        "qualities": [quality.draw_quality(record, score) for score in scores(record)],
        "detectable": detectable(record),
        "differing": [(row.label, "; ".join(row.differs)) for row in record.rows if row.differs],
    }


def _tables(record: ComparisonRecord) -> dict[str, object]:
    """Everything that is printed as numbers."""
    standing = stand(record, record.score)
    return {
        "ranked": _score_lines(record, standing.ranked),
        "references": _score_lines(record, standing.references),
        "others": _score_lines(record, standing.others),
        "matrices": [differences.matrix(record, score) for score in scores(record)],
        "costs": costs.cost_table([row for row in standing.placed if row.cost]),
        "cost_notes": costs.notes(record),
        "copies": [
            ("Markdown", "md", tables.as_markdown(record)),
            ("LaTeX", "tex", tables.as_latex(record)),
            ("CSV", "csv", tables.as_csv(record)),
        ],
        "signatures": [(score_name(name), info) for name, info in record.score_info.items()],
        "facts": repeating.repeat(record),
        "budget": repeating.budget(record),
    }


def _panels(files: ComparisonFiles) -> dict[str, object]:
    """The small figures."""
    record = files.record
    return {
        "tradeoffs": [
            [tradeoff.draw_tradeoff(record, one, score) for one in tradeoff.tradeoffs(files, score)]
            for score in scores(record)
        ],
        "searches": search.searches(record),
        "curves": curves.panels(files),
    }


def _examples(files: ComparisonFiles) -> dict[str, object]:
    found = browser.examples(files)
    return {
        "examples": found,
        "articles": browser.articles(found),
        "data": Markup(_embedded(browser.as_data(files.record, found))),
    }


def _heading(text: str) -> Markup:
    """The text, in which a name such as ROUGE-L is not broken at its hyphen."""
    pieces = re.split(r"(\b\w{1,12}-\w{1,12}\b)", visible(text))
    return Markup("").join(
        Markup('<span class="whole">{}</span>').format(piece) if number % 2 else piece
        for number, piece in enumerate(pieces)
    )


def _by_name(files: Iterable[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Names of figures, each with its files as `(SVG, quality.svg)`."""
    found: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        stem, _, suffix = file.partition(".")
        found.setdefault(stem.replace("-", " "), []).append((suffix.upper(), file))
    return list(found.items())


def _score_lines(record: ComparisonRecord, rows: list[RowRecord]) -> list[ScoreLine]:
    ranked = [row for row in rows if row.status == "done" and record.score in row.scores]
    apart = breaks(ranked, record.score) if all(row.kind == "method" for row in ranked) else set()
    placed = {row.label for row in stand(record, record.score).placed}
    return [
        ScoreLine(
            label=one_line(row.label),
            about=reference(row) if row.label in placed else state(row),
            rule=row.label in apart,
            cells=[_score_cell(row, score) for score in scores(record)],
        )
        for row in rows
    ]


def _score_cell(row: RowRecord, score: str) -> ScoreCell:
    if score not in row.scores:
        return ScoreCell(MISSING, "", "", None)
    estimate = row.scores[score]
    return ScoreCell(*mean_and_interval(estimate), estimate.group, estimate.value)


def _embedded(data: object) -> str:
    """JSON inside a `script` element: nothing in it can end the element, and no character of it is hidden."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)
