"""The score table, line by line, as both the page and the terminal show it; and what it amounts to in one sentence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from inlay.tuner.records import BaseRecord, ChangeRecord, Metrics, RunRecord, ScoreRecord
from inlay.tuner.report.figures import MISSING, count, counted, figure, interval
from inlay.tuner.report.text import one_line

_SPELLING = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "bleu": "BLEU",
    "chrf": "chrF",
    "token_f1": "token F1",
    "distinct1": "distinct-1",
    "distinct2": "distinct-2",
    "f1": "macro-F1",
    "empty": "empty replies",
}
_DIRECTION = {True: "higher", False: "lower", None: ""}
_SUFFIX = {"%": " %", "pp": " pp"}
_VERDICTS = {  # verdict -> how the sentence starts with it, how it goes on with it
    "worse": ("is worse than the base", "worse"),
    "unclear": ("cannot be told apart from the base", "unclear"),
    "same": ("scores the same as the base", "the same"),
    "better": ("is better than the base", "better"),
}


@dataclass(frozen=True)
class Line:
    """One score: every cell as it is printed. A missing cell is `-`, and `reasons` says why."""

    key: str
    name: str
    direction: str
    unit: str
    base: str
    base_interval: str
    tuned: str
    tuned_interval: str
    change: str
    change_interval: str
    verdict: str
    reasons: tuple[str, ...]


def score_name(key: str) -> str:
    """The usual spelling of a score's name: `rougeL` is ROUGE-L, `bits_per_byte` is bits per byte."""
    return _SPELLING.get(key) or one_line(key.replace("_", " "))


def trained(record: RunRecord) -> bool:
    """Whether there is a tuned model to speak of: not with the method `none`, nor if only the base was scored."""
    if record.metrics and not record.metrics.tuned:
        return False
    return record.adapter is None or record.adapter.method != "none"


def lines(record: RunRecord) -> list[Line]:
    """One line a score, in the order of the record; without a tuned model, the base's scores alone."""
    if record.metrics is None:
        return []
    tuned, base, change = record.metrics.tuned, record.metrics.base, record.metrics.change
    if not trained(record):
        return [_line(key, None, score, None, tuple(_no_interval(key, "base", score))) for key, score in base.items()]
    found = [(key, tuned.get(key), base.get(key), change.get(key)) for key in dict.fromkeys([*tuned, *base])]
    return [_line(*scores, _reasons(*scores)) for scores in found]


def against_few_shot(record: RunRecord) -> RunRecord | None:
    """The record with the base that was shown training examples in the place of the base; None where it was not."""
    found = record.metrics
    if found is None or not found.few_shot:
        return None
    metrics = Metrics(tuned=found.tuned, base=found.few_shot, change=found.few_shot_change)
    return record.model_copy(update={"metrics": metrics})


def few_shot_name(record: RunRecord) -> str:
    """`3-shot base`."""
    return f"{len(record.eval.few_shot) if record.eval else ''}-shot base"


def _reasons(
    key: str, tuned: ScoreRecord | None, base: ScoreRecord | None, change: ChangeRecord | None
) -> tuple[str, ...]:
    """Why cells of this line are missing."""
    name = score_name(key)
    if tuned is None or base is None:
        return (f"{name}: not measured for the {'tuned model' if tuned is None else 'base'}",)
    reasons = [*_no_interval(key, "base", base), *_no_interval(key, "tuned model", tuned)]
    if change is None:
        reasons.append(f"{name}: the change was not measured")
    elif change.ci95 is None:
        why = "every row scores the same" if change.verdict == "same" else counted(tuned.n, "row")
        reasons.append(f"{name}: the change has no interval ({why})")
    return tuple(reasons)


def _no_interval(key: str, who: str, score: ScoreRecord) -> list[str]:
    if score.ci95:
        return []
    return [f"{score_name(key)}: the score of the {who} has no interval ({one_line(score.note) or 'not computed'})"]


def _line(
    key: str,
    tuned: ScoreRecord | None,
    base: ScoreRecord | None,
    change: ChangeRecord | None,
    reasons: tuple[str, ...],
) -> Line:
    known = tuned or base
    suffix = _SUFFIX.get(change.unit, "") if change else ""
    return Line(
        key=key,
        name=score_name(key),
        direction=_DIRECTION[known.higher_is_better] if known else "",
        unit=one_line(known.unit) if known else "",
        base=_score(base),
        base_interval=_score_interval(base),
        tuned=_score(tuned),
        tuned_interval=_score_interval(tuned),
        change=figure(change.value, change.ci95, signed=True) + suffix if change else MISSING,
        change_interval=interval(change.value, change.ci95, signed=True) if change and change.ci95 else MISSING,
        verdict=change.verdict if change else "not measured",
        reasons=reasons,
    )


def _score(score: ScoreRecord | None) -> str:
    return figure(score.value, score.ci95) + _SUFFIX.get(score.unit, "") if score else MISSING


def _score_interval(score: ScoreRecord | None) -> str:
    return interval(score.value, score.ci95) if score and score.ci95 else MISSING


def model_name(base: BaseRecord | None) -> str:
    """The base's short name with its quantization, e.g. `SmolLM2-135M (nf4)`."""
    if base is None:
        return "a base that was not loaded"
    name = one_line(base.model).rstrip("/").split("/")[-1]
    return f"{name} ({one_line(base.quantization)})" if base.quantization else name


def sentence(record: RunRecord) -> str:
    """What was trained and what it reached against the base; every word of judgement comes from the record."""
    task = one_line(record.task).replace("_", " ").capitalize()
    if not trained(record):
        what = f"{task} by {model_name(record.base)}, untrained"
    else:
        method = one_line(record.adapter.name) if record.adapter else "an adapter"
        what = f"{task} with {method} on {model_name(record.base)}"
    if record.status == "failed":
        return f"This run failed: {what}"
    return _beginning(record) + what + _finding(record)


def _beginning(record: RunRecord) -> str:
    if record.status == "complete":
        return ""
    word = {"interrupted": "Interrupted", "running": "Still running"}[record.status]
    return f"{word} after {counted(record.train.steps, 'step')}: " if record.train else f"{word}: "


def _finding(record: RunRecord) -> str:
    table = lines(record)
    if not table:
        return ", not scored"
    changed = [line for line in table if line.change != MISSING]
    if not changed:
        first = table[0]
        return f": {first.name} {first.base if first.tuned == MISSING else first.tuned}"
    counts = Counter(line.verdict for line in changed)
    order = sorted(counts, key=lambda verdict: (-counts[verdict], list(_VERDICTS).index(verdict)))
    first, total = changed[0], len(changed)
    parts = [f"{_VERDICTS[order[0]][0]}{_extent(counts[order[0]], total)}"]
    parts += [f"{_VERDICTS[verdict][1]} on {count(counts[verdict])}" for verdict in order[1:]]
    return f" {', '.join(parts)}: {first.name} {first.tuned} against {first.base}"


def _extent(number: int, total: int) -> str:
    if total == 1:
        return ""
    whole = "both" if total == 2 else f"all {total}"
    return f" on {whole} scores" if number == total else f" on {number} of {total} scores"
