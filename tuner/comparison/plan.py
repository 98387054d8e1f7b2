"""From a specification to rows, each with a whole recipe, checked before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import inlay
from inlay import adapters
from inlay.tuner.adapter_folder import find as find_adapter
from inlay.tuner.adapter_folder import weights_sha256
from inlay.tuner.comparison import spec as specs
from inlay.tuner.comparison.spec import SHARED, Between, References, Row, Search, Space, Spec, Times
from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.recipe import Recipe, load, recipe_hash
from inlay.tuner.recipe.resolved import as_yaml
from inlay.tuner.recipe.yaml import Document, KeyPath, dotted
from inlay.tuner.shipped import shipped

Kind = Literal["method", "base", "few_shot", "full"]


@dataclass(frozen=True)
class PlannedRow:
    """One row of the comparison.

    Attributes:
        label, slug: what it is called, on a page and in the name of a folder.
        source, given: the recipe's file or name, and the overrides that make the row's recipe of it.
        recipe: that recipe, with the first seed.
        named_rate: the row or an override names the learning rate, so that it is not the method's own.
    """

    label: str
    slug: str
    kind: Kind
    source: str
    given: tuple[str, ...]
    recipe: Recipe
    named_rate: bool

    def with_values(self, values: Mapping[str, Any], name: str, seed: int) -> Recipe:
        """The recipe of one cell or trial.

        Args:
            values: fields by dotted path.

        Raises:
            RequestError: a field is unknown to this row's method, or a value is out of its range.
        """
        changed = [f"{path}={_written(value)}" for path, value in values.items()]
        return load(self.source, [*self.given, *changed, f"seed={seed}", f"name={name}"])


@dataclass(frozen=True)
class Plan:
    """What is to be compared. `text` is the specification as it was given; `identity` is the hash of all of this: the
    same identity asks for the same comparison."""

    name: str
    text: str
    rows: tuple[PlannedRow, ...]
    seeds: tuple[int, ...]
    score: str | None
    search: Search | None
    match_parameters: int | None
    outside: Path | None
    identity: str


def from_spec(path_or_name: str, overrides: Sequence[str] = ()) -> Plan:
    """The plan of a specification's file.

    Args:
        overrides: each `dotted.path=value` of a recipe, for all rows, after those of the file.

    Raises:
        RequestError: every mistake in the file and in its rows.
    """
    spec, document, folder = specs.read(path_or_name)
    recipe = _recipe_beside(spec.recipe, folder)
    outside = (folder / spec.outside).absolute() if spec.outside else None
    if outside and not outside.is_file():
        raise RequestError(document.span(("outside",)).problem("there is no such file", path="outside"))
    written = Path(document.file).read_text(encoding="utf-8") if Path(document.file).is_file() else ""
    return _plan(spec, recipe, [*spec.overrides, *overrides], document, written, outside)


def from_methods(recipe: str, methods: Sequence[str], seeds: int, overrides: Sequence[str] = ()) -> Plan:
    """The plan of a recipe with several methods, each with its own defaults.

    Raises:
        RequestError: an unknown method, or a mistake in the recipe.
    """
    if not methods or seeds < 1:
        raise RequestError(f"{seeds} seeds of {len(methods)} methods: there is nothing to compare")
    unknown = [name for name in methods if name not in adapters.names()]
    if unknown:
        try:
            adapters.find(unknown[0])
        except LookupError as error:
            raise RequestError(str(error), help="`inlay ls methods` says what each does") from None
    spec = Spec(
        name=_slug(f"compare-{Path(recipe).stem}")[:64],
        recipe=recipe,
        rows=[Row(adapter={"method": name}) for name in methods],
        seeds=seeds,
    )
    return _plan(spec, recipe, list(overrides), Document(recipe), _as_text(spec, overrides), None)


def _as_text(spec: Spec, overrides: Sequence[str]) -> str:
    """The specification as a file that asks for the same."""
    value = {**spec.model_dump(mode="json", exclude_defaults=True), "overrides": list(overrides)}
    return as_yaml(value)


def _recipe_beside(recipe: str, folder: Path) -> str:
    """A recipe's file beside the specification, or the name of a shipped one."""
    beside = folder / recipe
    if beside.is_file():
        return str(beside)
    return recipe if recipe in {found.name for found in shipped()} else str(beside)


def _plan(
    spec: Spec, recipe: str, overrides: list[str], document: Document, text: str, outside: Path | None
) -> Plan:
    seeds = specs.seeds_of(spec)
    problems: list[Problem] = []
    rows: list[PlannedRow] = []
    for place, row in enumerate(spec.rows):
        try:
            rows.append(_row(row, recipe, overrides, seeds[0]))
        except RequestError as failure:
            problems += [_placed(problem, document, ("rows", place)) for problem in failure.problems]
    if problems:
        raise RequestError(list(dict.fromkeys(problems)))
    rows = _told_apart(rows)
    if spec.search and (problems := _check_search(spec.search, rows, document)):
        raise RequestError(problems)
    rows = [*_references(spec.references, recipe, overrides, seeds[0]), *rows]
    repeated = [label for label, times in Counter(row.label for row in rows).items() if times > 1]
    if repeated:
        raise RequestError(f"two rows are called `{repeated[0]}`", help="give each row a `label` of its own")
    return Plan(
        name=spec.name,
        text=text,
        rows=tuple(_with_slugs(rows)),
        seeds=seeds,
        score=spec.score,
        search=spec.search,
        match_parameters=spec.match_parameters,
        outside=outside,
        identity=_identity(spec, rows, seeds, outside),
    )


def _row(row: Row, recipe: str, overrides: list[str], seed: int, kind: Kind = "method") -> PlannedRow:
    named = "learning_rate" in row.train or any(given.startswith("train.learning_rate=") for given in overrides)
    given = [
        "eval.few_shot=0",  # a reference row, where it is asked for
        *([] if named else ["train.learning_rate=null"]),
        *overrides,
        f"adapter={json.dumps(row.adapter)}",
        *(f"train.{key}={_written(value)}" for key, value in row.train.items()),
    ]
    loaded = load(recipe, [*given, f"seed={seed}"])
    return PlannedRow(row.label or "", "", kind, recipe, tuple(given), loaded, named)


def _written(value: Any) -> str:
    """A value as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _placed(problem: Problem, document: Document, place: KeyPath, about: str = "") -> Problem:
    """A problem of a row's recipe, told where the comparison says it: its own text is an override nobody wrote."""
    if not problem.file.startswith("--set"):
        return problem
    path = (*place, *problem.path.split(".")) if place[0] == "rows" else place
    span = specs.place_of(document, path)
    return span.problem(f"{about}{problem.message}", path=dotted(path), note=problem.note, help=problem.help)


def _check_search(search: Search, rows: Sequence[PlannedRow], document: Document) -> list[Problem]:
    """Fields that a row does not have, or values that it cannot have."""
    problems = [
        specs.place_of(document, ("search", "space", name)).problem(said, path=f"search.space.{name}")
        for name, space in search.space.items()
        if (said := _unsearchable(name, space))
    ]
    if problems:
        return problems
    for row in rows:
        for name, space in search.space.items():
            for value in _tried(space, row):
                try:
                    row.with_values({name: value}, row.slug or "row", row.recipe.seed)
                except RequestError as failure:
                    place = ("search", "space", name)
                    problems += [_placed(p, document, place, f"{row.label}: ") for p in failure.problems]
                    break
    return problems


def _unsearchable(name: str, space: Space) -> str:
    """Why a field cannot be searched; empty where it can."""
    if not name.startswith(("adapter.", "train.")) or name in SHARED:
        return f"`{name}` is the same for all rows, so it cannot be searched"
    if isinstance(space, Times) and name != "train.learning_rate":
        return f"`times` are of a method's own learning rate; `{name}` needs values, or `low` and `high`"
    return ""


def _tried(space: Space, row: PlannedRow) -> list[Any]:
    """The values of a field that a row may get, or the ends of their range."""
    if isinstance(space, Times):
        own = adapters.find(row.recipe.adapter.method).learning_rate
        return [own * times for times in space.times]
    return [space.low, space.high] if isinstance(space, Between) else space


def _references(wanted: References, recipe: str, overrides: list[str], seed: int) -> list[PlannedRow]:
    """The untouched base always; with examples in context, and full fine-tuning, where they are asked for."""
    untouched = Row(label="base", adapter={"method": "none"})
    rows = [_row(untouched, recipe, overrides, seed, "base")]
    if wanted.few_shot:
        name = f"base, {wanted.few_shot} example{'s' if wanted.few_shot > 1 else ''} in context"
        shown = Row(label=name, adapter={"method": "none"})
        rows.append(_row(shown, recipe, [*overrides, f"eval.few_shot={wanted.few_shot}"], seed, "few_shot"))
    if wanted.full:
        rate = {"learning_rate": wanted.full_learning_rate} if wanted.full_learning_rate else {}
        row = Row(label="full fine-tuning", adapter={"method": "full"}, train=rate)
        rows.append(_row(row, recipe, overrides, seed, "full"))
    return rows


def _told_apart(rows: list[PlannedRow]) -> list[PlannedRow]:
    """Rows without a label get the method's title, with the options that differ where two have the same."""
    titles = Counter(adapters.find(row.recipe.adapter.method).title for row in rows if not row.label)
    named = []
    for row in rows:
        if row.label:
            named.append(row)
            continue
        title = adapters.find(row.recipe.adapter.method).title
        same = [r for r in rows if not r.label and r.recipe.adapter.method == row.recipe.adapter.method]
        extra = ", ".join(_differing(row, same)) if titles[title] > 1 else ""
        named.append(replace(row, label=f"{title} {extra}".rstrip()))
    return named


def _differing(row: PlannedRow, same: list[PlannedRow]) -> list[str]:
    """What tells `row` from others of its method: options, and training fields where no option does: `r 8`."""
    for block in ("options", "train"):
        own, *others = (_fields(r.recipe, block) for r in (row, *same))
        parts = [f"{name} {_brief(value)}" for name, value in own.items() if any(o[name] != value for o in others)]
        if parts:
            return parts
    return []


def _fields(recipe: Recipe, block: str) -> dict[str, Any]:
    return (recipe.adapter.options if block == "options" else recipe.train).model_dump(mode="json")


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _with_slugs(rows: Sequence[PlannedRow]) -> list[PlannedRow]:
    made: list[PlannedRow] = []
    for row in rows:
        stem, number = _slug(row.label)[:40] or row.recipe.adapter.method, 1
        while (slug := stem if number == 1 else f"{stem}-{number}") in {other.slug for other in made}:
            number += 1
        made.append(replace(row, slug=slug))
    return made


def _slug(text: str) -> str:
    """Letters, digits and single dashes of a text."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()


def _identity(spec: Spec, rows: Sequence[PlannedRow], seeds: Sequence[int], outside: Path | None) -> str:
    parts = {
        "version": inlay.__version__,
        "name": spec.name,
        "rows": [[row.label, row.kind, recipe_hash(row.recipe), _start(row)] for row in rows],
        "seeds": list(seeds),
        "score": spec.score,
        "search": spec.search.model_dump(mode="json") if spec.search else None,
        "match_parameters": spec.match_parameters,
        "outside": hashlib.sha256(outside.read_bytes()).hexdigest() if outside else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _start(row: PlannedRow) -> str:
    """Hash of the adapter that the row's training begins with; empty where it begins with none."""
    found = find_adapter(Path(row.recipe.adapter.start_from)) if row.recipe.adapter.start_from else None
    return weights_sha256(found) if found else ""
