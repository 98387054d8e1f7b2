"""The comparison as tables for elsewhere: CSV with every number in full, Markdown for a README, LaTeX for a paper."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence

from inlay.tuner.comparison.records import ComparisonRecord, CostRecord, RowRecord
from inlay.tuner.comparison.standing import breaks, mean_and_interval, reference, stand, state
from inlay.tuner.report.figures import MISSING, count, counted, duration, size
from inlay.tuner.report.scores import score_name
from inlay.tuner.report.text import one_line

_COSTS = tuple(CostRecord.model_fields)
COLUMNS = (
    *("label", "kind", "method", "status", "reason", "learning_rate"),
    *("score", "unit", "higher_is_better", "seed", "value", "mean", "ci95_low", "ci95_high", "group"),
    *_COSTS,
    *("forgetting", "forgetting_ci95_low", "forgetting_ci95_high"),
)


def as_csv(record: ComparisonRecord) -> str:
    """One line for each row, score and seed, with the row's summary on each; a row without scores has one line.

    Numbers are whole, as in `comparison.json`. A text that a spreadsheet would take for a formula begins with an
    apostrophe.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in record.rows:
        for line in _lines(record, row):
            writer.writerow({name: _field(value) for name, value in line.items()})
    return text.getvalue()


def _field(value: object) -> object:
    if not isinstance(value, str):
        return "" if value is None else value
    shown = one_line(value)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def _lines(record: ComparisonRecord, row: RowRecord) -> Iterator[dict[str, object]]:
    known: dict[str, object] = {
        "label": row.label, "kind": row.kind, "method": row.method, "status": row.status, "reason": row.reason,
        "learning_rate": row.learning_rate,
    }  # fmt: skip
    known |= row.cost.model_dump() if row.cost else {}
    if row.forgetting:
        low, high = row.forgetting.ci95 or (None, None)
        known |= {"forgetting": row.forgetting.value, "forgetting_ci95_low": low, "forgetting_ci95_high": high}
    if not row.scores:
        yield known
    for name, estimate in row.scores.items():
        info = record.score_info.get(name)
        low, high = estimate.ci95 or (None, None)
        summary = {
            "score": name, "unit": info.unit if info else "", "mean": estimate.value, "ci95_low": low,
            "ci95_high": high, "group": estimate.group,
            "higher_is_better": None if info is None or info.higher_is_better is None else int(info.higher_is_better),
        }  # fmt: skip
        seeds = row.seeds if len(row.seeds) == len(estimate.seeds) else [None] * len(estimate.seeds)
        for seed, value in zip(seeds, estimate.seeds, strict=True):
            yield known | summary | {"seed": seed, "value": value}


def _cells(record: ComparisonRecord, row: RowRecord) -> list[str]:
    """Label, main score with its interval, group, trainable parameters, training time, peak memory; as printed."""
    mean, ends = mean_and_interval(row.scores[record.score])
    cost = [MISSING] * 3
    if row.cost:
        cost = [count(row.cost.trainable_parameters), duration(row.cost.train_seconds), size(row.cost.train_peak_bytes)]
    return [one_line(row.label), mean, ends, row.scores[record.score].group or MISSING, *cost]


def _head(record: ComparisonRecord) -> list[str]:
    name = score_name(record.score)
    return ["", name, "95 % interval", "Group", "Trainable", "Training", "Peak memory"]


def caption(record: ComparisonRecord) -> str:
    """What the table shows, in one sentence."""
    info = record.score_info.get(record.score)
    word = {True: ", higher is better", False: ", lower is better"}.get(info.higher_is_better, "") if info else ""
    ranked = stand(record, record.score).ranked
    sizes = ", ".join(
        [counted(len(ranked), "method"), counted(len(record.seeds), "seed"), counted(record.examples, "row")]
    )
    claim = "seeds and rows" if record.claim == "seeds" else "rows, with these trained models"
    return (
        f"{score_name(record.score)}{word}: mean and 95 % interval over {claim} "
        f"({sizes} of {one_line(record.split)}). Rows that share a letter cannot be told apart."
    )


def as_markdown(record: ComparisonRecord) -> str:
    """A table that pastes into a README, the rows without a place below it, and the finding in words."""
    standing = stand(record, record.score)
    rows = [_cells(record, row) for row in standing.placed]
    lines = [_row(_head(record)), _row([":--", "--:", "--:", ":-:", "--:", "--:", "--:"])]
    lines += [_row([_marked(cell) for cell in cells]) for cells in rows]
    found = ["\n".join(lines), _marked(caption(record))]
    if standing.others:
        found.append("\n".join(f"* {_marked(one_line(row.label))}: {_marked(state(row))}" for row in standing.others))
    found.append("\n".join(f"* {_marked(one_line(sentence))}" for sentence in record.sentences))
    return "\n\n".join(part for part in found if part) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _marked(text: str) -> str:
    """Text in which nothing is Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|~#&!])", r"\\\1", text)


def as_latex(record: ComparisonRecord) -> str:
    """A table for `booktabs`, with a rule between rows that share no group."""
    standing = stand(record, record.score)
    apart = breaks(standing.ranked, record.score)
    lines = []
    for row in standing.ranked:
        lines += [r"\addlinespace"] if row.label in apart else []
        lines.append(_latex_row(record, row))
    if standing.references:
        lines += [r"\midrule", *(_latex_row(record, row) for row in standing.references)]
    lines += [r"\midrule"] if standing.others else []
    for row in standing.others:
        lines.append(rf"{_escaped(one_line(row.label))} & \multicolumn{{6}}{{l}}{{{_escaped(state(row))}}} \\")
    head = " & ".join(_escaped(name) for name in _head(record))
    return "\n".join([
        f"% {one_line(record.id)}; needs \\usepackage{{booktabs}}",
        r"\begin{table}", r"\centering", f"\\caption{{{_escaped(caption(record))}}}", r"\begin{tabular}{lrrcrrr}",
        r"\toprule", rf"{head} \\", r"\midrule", *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip


def _latex_row(record: ComparisonRecord, row: RowRecord) -> str:
    cells = [_escaped(cell) for cell in _cells(record, row)]
    if row.kind == "full":
        cells[0] += f" ({_escaped(reference(row))})"
    return " & ".join(cells) + r" \\"


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def _escaped(text: str) -> str:
    """Text in which nothing is LaTeX; a minus before a digit is one."""
    plain = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", plain)
