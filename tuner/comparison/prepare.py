"""What is known of a comparison before a weight is loaded: one survey of base and data, and every row fitted to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from inlay import adapters
from inlay.adapters import Facts
from inlay.eval import metrics
from inlay.tuner import base as base_models
from inlay.tuner.comparison.plan import Plan, PlannedRow
from inlay.tuner.model_files import locate
from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.recipe import Recipe
from inlay.tuner.setting import Setting, settled, survey
from inlay.tuner.training.trackers import reason_against_several

LOSS = "loss"


@dataclass(frozen=True)
class Ready:
    """A plan on its base and data.

    Attributes:
        plan: its rows with the sizes that they will have.
        base: the setting of the untouched base.
        settings: of each row that can be trained, by its slug.
        refused: why the others cannot.
        score: orders the rows.
    """

    plan: Plan
    base: Setting
    settings: Mapping[str, Setting]
    refused: Mapping[str, str]
    score: str

    @property
    def trained(self) -> list[PlannedRow]:
        """The rows that are trained, in the plan's order."""
        return [row for row in self.plan.rows if row.kind in ("method", "full") and row.slug in self.settings]

    @property
    def searched(self) -> list[PlannedRow]:
        """The rows whose values are searched."""
        return [row for row in self.trained if row.kind == "method"] if self.plan.search else []


def prepare(plan: Plan) -> Ready:
    """Reads base and data once, with the context that the most demanding row leaves, and fits every row to them.

    Raises:
        RequestError: base or data cannot be used, no row can be trained, or the score is unknown.
    """
    _refuse_unfair(plan)
    first = plan.rows[0]
    facts = _facts(first.recipe)
    plan = replace(plan, rows=tuple(_sized(row, plan.match_parameters, facts) for row in plan.rows))
    shown = next((row for row in plan.rows if row.kind == "few_shot"), first)
    validates = plan.search is not None or any(row.recipe.train.eval_steps for row in plan.rows)
    splits = dict.fromkeys((*(("validation",) if validates else ()), first.recipe.eval.split))
    recipe = shown.with_values({}, "base", plan.seeds[0])
    base = survey(recipe, tuple(splits), reserve=max(map(_prepended, _recipes(plan))))
    settings: dict[str, Setting] = {}
    refused: dict[str, str] = {}
    problems = []
    for row in plan.rows:
        try:
            settings[row.slug] = base.adapted_as(row.recipe)
        except RequestError as failure:
            refused[row.slug] = failure.problems[0].message
            problems += failure.problems
    ready = Ready(plan, base, settings, refused, _score(plan, base))
    if not any(row.kind == "method" for row in ready.trained):
        raise RequestError(problems)
    return ready


def _refuse_unfair(plan: Plan) -> None:
    """What would make rows unequal, put them into one run of a tracker, or choose on the rows that are scored."""
    recipe = plan.rows[0].recipe
    if any(row.recipe.train.early_stopping_patience for row in plan.rows):
        message = "with early stopping the rows of a comparison would see unequal numbers of tokens"
        raise RequestError(message, help="add `train.early_stopping_patience=null` to the overrides")
    trackers = sorted({tracker for row in plan.rows for tracker in row.recipe.train.report_to})
    if reason := reason_against_several(trackers):
        raise RequestError(Problem(reason, path="train.report_to"))
    if plan.search is None:
        return
    if recipe.eval.split == "validation":
        message = "the search chooses on the validation rows, so they cannot be the benchmark as well"
        raise RequestError(message, help="add `eval.split=test` to the overrides")
    objective = plan.search.objective
    if objective == LOSS:
        return
    known = [name for name in metrics.names() if metrics.find(name).higher_is_better is not None]
    if objective not in known:
        raise RequestError(f"`{objective}` cannot decide a search", help=f"`{LOSS}`, or one of {', '.join(known)}")


def _facts(recipe: Recipe) -> Facts:
    files = locate(recipe.base.model, recipe.base.revision)
    return base_models.read_facts(base_models.read_config(files), settled(recipe, files).base.quantization.bits)


def _recipes(plan: Plan) -> Iterator[Recipe]:
    """Every row's recipe, and those that a search of adapter options can make of it."""
    for row in plan.rows:
        yield row.recipe
        for name, space in (plan.search.space if plan.search and row.kind == "method" else {}).items():
            if name.startswith("adapter.") and isinstance(space, list):
                yield from (row.with_values({name: value}, row.recipe.name, row.recipe.seed) for value in space)


def _prepended(recipe: Recipe) -> int:
    return adapters.find(recipe.adapter.method)(recipe.adapter.options).prepended


def _sized(row: PlannedRow, weights: int | None, facts: Facts) -> PlannedRow:
    """The row with its method's size such that about so many weights train; a method without sizes as it is."""
    if weights is None or row.kind != "method":
        return row
    method = adapters.find(row.recipe.adapter.method)(row.recipe.adapter.options)
    try:
        sized = method.sized(facts, weights)
    except LookupError:  # no size fits this base, which the method's refusal tells better
        return row
    if sized is None:
        return row
    block = json.dumps({"method": row.recipe.adapter.method, **sized.model_dump(mode="json")})
    resized = replace(row, given=(*row.given, f"adapter={block}"))
    return replace(resized, recipe=resized.with_values({}, row.recipe.name, row.recipe.seed))


def _score(plan: Plan, base: Setting) -> str:
    known = [name for metric in base.metrics for name in metric.scores]
    if plan.score is not None and plan.score not in known:
        raise RequestError(f"`{plan.score}` is no score of this comparison", help=f"one of {', '.join(known)}")
    return plan.score or base.metrics[0].main or known[0]
