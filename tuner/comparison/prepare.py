"""What is known of a comparison before a weight is loaded: one survey of base and data, and every row fitted to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from inlay import adapters
from inlay.adapters import Facts
from inlay.tuner.comparison.plan import Plan, PlannedRow
from inlay.tuner.problems import RequestError
from inlay.tuner.setting import Setting, survey


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
    first = plan.rows[0]
    methods = [adapters.find(row.recipe.adapter.method)(row.recipe.adapter.options) for row in plan.rows]
    shown = next((row for row in plan.rows if row.kind == "few_shot"), first)
    validates = plan.search is not None or any(row.recipe.train.eval_steps for row in plan.rows)
    splits = dict.fromkeys((*(("validation",) if validates else ()), first.recipe.eval.split))
    recipe = shown.with_values({}, "base", plan.seeds[0])
    base = survey(recipe, tuple(splits), reserve=max(method.prepended for method in methods))
    plan = replace(plan, rows=tuple(_sized(row, plan.match_parameters, base.facts) for row in plan.rows))
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
