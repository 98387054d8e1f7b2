"""The finding of a comparison in words: its heading, and the sentences that stand under its table.

Nothing is said that the tests do not say: rows are behind only if a test tells them apart, tied if none does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from inlay.eval.groups import Groups
from inlay.eval.metrics import Additive
from inlay.eval.power import detectable, needed
from inlay.eval.seeds import tell
from inlay.tuner.comparison.analysis import Analysis
from inlay.tuner.comparison.records import PairRecord, RowRecord
from inlay.tuner.report.figures import count, counted, figure, plain
from inlay.tuner.report.scores import score_name

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_FEW = 4  # names that are listed one by one


def heading(analysis: Analysis, score: str, fallback: str) -> str:
    """The finding as one sentence without a full stop; `fallback` where there is none."""
    groups, name = analysis.groups, score_name(score)
    if groups is None:
        return fallback
    best, others = groups.best, [label for label in groups.order if label not in groups.tied]
    if len(groups.order) == 1:
        found = analysis.row(best).scores[score]
        return f"{best} reaches {figure(found.value, found.ci95)} {name}"
    if not others and _all_tied(groups):
        which = "The two methods" if len(groups.order) == 2 else f"The {_number(len(groups.order))} methods"
        return f"{which} cannot be told apart on {name}"
    behind = "" if not others else f"the other {_number(len(others))}" if len(others) > 1 else others[0]
    if len(groups.tied) == 1:
        return f"{best} is ahead of {behind} on {name}"
    everywhere = all(groups.apart(one, other) for one in groups.tied for other in others)
    together = f"{_together(groups)} on {name}"
    return f"{together}; {'they are' if everywhere else f'{best} is'} ahead of {behind}" if others else together


def sentences(analysis: Analysis, metric: Additive | None, score: str, tuning: str) -> list[str]:
    """What a reader has to know beside the table."""
    groups = analysis.groups
    said = []
    if groups is not None and metric is not None and len(groups.order) > 1:
        said += [_ties(analysis, groups), *_split(groups, metric), _claim(groups)]
    said += [*_references(analysis, score), *_lost(analysis.rows), *_edges(analysis.rows)]
    return [*(sentence for sentence in said if sentence), tuning]


def detectable_by(groups: Groups | None, metric: Additive | None, seeds: int, examples: int) -> float | None:
    """The smallest difference that comparisons like this one find four times in five, from the spread of its own
    pairs; on a ratio scale in %. None where no pair could be tested."""
    spread = groups.variances if groups is not None else None
    if groups is None or metric is None or spread is None or not (spread.seed or spread.example or spread.residual):
        return None
    return abs(tell(metric, detectable(spread, seeds, examples, len(groups.order))))


def _ties(analysis: Analysis, groups: Groups) -> str:
    """Which rows tie with the best, and what tells them apart after all: cost."""
    pairs = list(combinations(groups.order, 2))
    tied = [pair for pair in pairs if not groups.apart(*pair)]
    if not tied:
        return "Every two methods can be told apart."
    if len(groups.tied) == 1:
        return f"{counted(len(tied), 'pair')} of the {len(pairs)} cannot be told apart: they share a letter."
    rows = [analysis.row(label) for label in groups.tied]
    costs = {row.label: row.cost for row in rows if row.cost}
    if len(costs) < len(rows):
        return f"{_together(groups)} here."
    fastest = min(costs, key=lambda label: costs[label].train_seconds)
    smallest = min(costs, key=lambda label: costs[label].trainable_parameters)
    return f"{_together(groups)} here. Fastest to train: {fastest}. Fewest weights: {smallest}."


def _all_tied(groups: Groups) -> bool:
    """Whether no two of those that tie with the best can be told apart from each other."""
    return not any(groups.apart(*pair) for pair in combinations(groups.tied, 2))


def _together(groups: Groups) -> str:
    """Who ties with the best; those that do may differ from each other."""
    if _all_tied(groups):
        return f"{_listed(groups.tied)} cannot be told apart"
    return f"{_listed(groups.tied[1:])} cannot be told from {groups.best}"


def _split(groups: Groups, metric: Additive) -> list[str]:
    """How many rows or seeds would tell the two best apart, were the gap what it seems."""
    first, second = groups.order[:2]
    gap = groups.differences[first, second]
    if groups.apart(first, second) or gap.spread is None or not gap.scaled:
        return []
    seeds = len(groups.estimates[first].seed_values)
    examples = round(gap.spread.example_df) + 1
    spread = groups.variances or gap.variances
    rows, more = needed(gap.scaled, spread, seeds, examples, len(groups.order))
    ways = [f"about {count(_rounded(rows))} rows to test on"] if rows and rows > examples else []
    ways += [f"about {count(more)} seeds"] if more and more > seeds else []
    apart = f"{figure(abs(gap.value), None)} {gap.unit}"
    if not ways:
        return [f"Neither more rows nor more seeds alone would split {first} from {second} at a gap of {apart}."]
    return [f"To split {first} from {second}, if the gap of {apart} is real: {', or '.join(ways)}."]


def _rounded(number: int) -> int:
    """Two significant digits: a planned size is no exact number."""
    return int(float(f"{number:.1e}")) if number > 99 else number


def _claim(groups: Groups) -> str:
    if groups.claim == "seeds":
        return "Groups and intervals speak of other seeds and other rows; p-values are Holm's over all pairs."
    return (
        "With one seed, groups speak of these trained models on other rows. Another seed might order the methods "
        "otherwise."
    )


def _references(analysis: Analysis, score: str) -> list[str]:
    """How the methods stand to the untouched base and to other references."""
    said = []
    ranked = analysis.groups.order if analysis.groups else ()
    info = analysis.info.get(score)
    if not ranked or info is None or info.higher_is_better is None:
        return []
    for reference in [row for row in analysis.rows if row.kind != "method" and row.status == "done"]:
        pairs = [pair for pair in analysis.pairs if pair.score == score and pair.b == reference.label]
        better = [pair.a for pair in pairs if _verdict(pair, info.higher_is_better) == "better"]
        worse = [pair.a for pair in pairs if _verdict(pair, info.higher_is_better) == "worse"]
        open_ = [pair.a for pair in pairs if pair.a not in better and pair.a not in worse]
        name = "the untouched base" if reference.kind == "base" else reference.label
        parts = []
        if better:
            parts.append(f"{_all_or(better, ranked)} better than {name}")
        if worse:
            parts.append(f"{_all_or(worse, ranked)} worse than {name}")
        if open_:
            everyone = len(open_) == len(ranked) > 1
            parts.append(f"{'no method can' if everyone else f'{_listed(open_)} cannot'} be told from {name}")
        told = "; ".join(parts)
        said.append(f"{told.replace('no method', 'No method', 1) if told.startswith('no method') else told}.")
    return said


def _verdict(pair: PairRecord, higher_is_better: bool) -> str:
    if not pair.apart:
        return "tie"
    return "better" if (pair.value > 0) == higher_is_better else "worse"


def _all_or(labels: Sequence[str], ranked: Sequence[str]) -> str:
    return f"{_names(labels, ranked)} {'is' if len(labels) == 1 else 'are'}"


def _names(labels: Sequence[str], ranked: Sequence[str]) -> str:
    if len(labels) == len(ranked) > 1:
        return "All methods"
    return _listed(labels)


def _lost(rows: Sequence[RowRecord]) -> list[str]:
    """Rows without a score, and why."""
    return [
        f"{row.label}: {'not comparable, it ' if row.status == 'incomparable' else f'{row.status}, '}{row.reason}."
        for row in rows
        if row.status in ("failed", "refused", "incomparable")
    ]


def _edges(rows: Sequence[RowRecord]) -> list[str]:
    """Fields whose best value was the smallest or the largest tried: the best may lie beyond it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for name in row.at_edge:
            value = row.chosen[name]
            shown = plain(value) if isinstance(value, float) else value
            found.setdefault(name, []).append(f"{row.label} ({shown})")
    return [
        f"The best {name.rpartition('.')[2].replace('_', ' ')} is at the edge of what was searched for {_all(labels)}."
        for name, labels in found.items()
    ]


def _all(labels: Sequence[str]) -> str:
    """`a, b and c`, however many."""
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def _listed(labels: Sequence[str]) -> str:
    """`a, b and c`; a long list is cut."""
    shown = list(labels)
    if len(shown) > _FEW + 1:
        shown = [*shown[:_FEW], f"{_number(len(labels) - _FEW)} more"]
    return _all(shown)


def _number(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
