"""From a file or a name to a checked recipe, with every mistake told at once."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inlay.eval import metrics
from inlay.tuner.data import tasks
from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.recipe import checks, explain, paths, yaml
from inlay.tuner.recipe.overrides import apply
from inlay.tuner.recipe.schema import Recipe
from inlay.tuner.recipe.yaml import Document, KeyPath, dotted
from inlay.tuner.shipped import comparisons, shipped

# Stands in for a required value that is missing or wrong, so that the rules about the others can still be checked.
# Chosen so that no rule is broken by the stand-in itself.
_STAND_INS: dict[KeyPath, Any] = {
    ("name",): "unnamed",
    ("base", "model"): "owner/name",
    ("adapter", "method"): "none",
    ("task", "type"): "unknown",
    ("task", "data"): paths.EMBEDDED,
}


def load(path_or_name: str | Path, overrides: Sequence[str] = (), *, anywhere: bool = False) -> Recipe:
    """The recipe of a file, or the shipped one of that name, with its paths made absolute.

    Args:
        path_or_name: a YAML file, or a name that `inlay ls recipes` shows.
        overrides: each `dotted.path=value`.
        anywhere: its paths start from the current directory and may lead out of it, as those of `--set` may; and data
            files that it names itself may be gone: it has served a run, and not everything asked of that needs them.

    Raises:
        RequestError: carries every mistake, each with its file, line and dotted path.
    """
    try:
        path = _find(str(path_or_name))
        with path.open("rb") as file:
            data = file.read(yaml.MAX_BYTES + 1)
    except OSError as error:
        message = f"the recipe cannot be read: {str(error.strerror).lower()}"
        raise RequestError(Problem(message, file=explain.printable(path_or_name))) from error
    return parse(data, _displayed(path), path.parent, overrides, anywhere=anywhere)


def parse(
    data: bytes, file: str, folder: Path, overrides: Sequence[str] = (), *, anywhere: bool = False
) -> Recipe:
    """The recipe written in `data`; `file` names it in messages, relative paths start from `folder`.

    Raises:
        RequestError: as `load`.
    """
    document = yaml.read(data, file)
    if not document.complete:
        raise RequestError(document.problems)
    apply(document, overrides)
    recipe, problems, wrong = _validate(document)
    problems = [*document.problems, *problems]
    located: dict[str, str] = {}
    if recipe is not None:
        problems += itertools.islice(_broken_rules(recipe, document, wrong), yaml.MAX_PROBLEMS)
        located, misplaced = _locate(recipe, document, folder, wrong, anywhere)
        problems += misplaced
    if problems or recipe is None:
        raise RequestError(sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return _resolved(recipe, located)


_LOCATE = {"model": paths.locate_model, "start_from": paths.locate_adapter}


def _find(path_or_name: str) -> Path:
    path = Path(path_or_name)
    if path.is_file():
        return path
    known = {recipe.name: recipe.path for recipe in shipped()}
    if path_or_name in known:
        return known[path_or_name]
    if path.is_dir():
        raise RequestError(Problem("this is a folder; a recipe is a file", file=path_or_name))
    if path_or_name in {found.name for found in comparisons()}:
        raise RequestError(f"`{path_or_name}` is a comparison", help=f"did you mean `inlay compare {path_or_name}`?")
    close = explain.nearest(path.stem if path.suffix in (".yaml", ".yml") else path_or_name, list(known))
    hint = f"did you mean `{close}`? " if close else ""
    raise RequestError(
        Problem(
            "no such recipe file or name", file=path_or_name, help=f"{hint}`inlay ls recipes` lists the shipped ones"
        )
    )


def _displayed(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _validate(document: Document) -> tuple[Recipe | None, list[Problem], set[KeyPath]]:
    """The recipe, its problems, and where they are. What is wrong is left out, so that the rest can be checked too."""
    value = copy.deepcopy(document.value)
    try:
        return _model(value), [], set()
    except ValidationError as error:
        problems = explain.problems(error, document)
        mistakes = error.errors(include_url=False)
    wrong = {tuple(item["loc"]) for item in mistakes if item["type"] == "missing"}
    for item in mistakes:
        if item["type"] != "missing":
            path = explain.written_path(item["loc"], document.value)
            wrong.add(path)
            _remove(value, path)
    for path, stand_in in _STAND_INS.items():
        _supply(value, path, stand_in)
    try:
        return _model(value), problems, wrong
    except ValidationError:
        return None, problems, wrong


def _model(value: dict[str, Any]) -> Recipe:
    # Through JSON, so that strictness takes a list for a tuple but never text for a number.
    return Recipe.model_validate_json(json.dumps(value), strict=True)


def _remove(value: Any, path: KeyPath) -> None:
    keys = list(itertools.takewhile(lambda part: isinstance(part, str), path))  # a wrong item takes its list along
    for key in keys[:-1]:
        value = value.get(key) if isinstance(value, dict) else None
    if keys and isinstance(value, dict):
        value.pop(keys[-1], None)


def _supply(value: dict[str, Any], path: KeyPath, stand_in: object) -> None:
    for part in path[:-1]:
        if not isinstance(value.get(part), dict):
            value[part] = {}
        value = value[part]
    if value.get(path[-1]) is None:
        value[path[-1]] = stand_in


def _broken_rules(recipe: Recipe, document: Document, wrong: set[KeyPath]) -> Iterator[Problem]:
    for finding in checks.findings(recipe):
        if any(_overlap(path, place) for path in wrong for place in (finding.path, *finding.reads)):
            continue  # what is wrong there is told already
        path = finding.path
        if finding.name_of:
            yield _unknown_name(recipe, finding, document)
        else:
            span = document.span(path, key=True)
            yield span.problem(finding.message, path=dotted(path), help=finding.help)


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    """Whether one of the places holds the other."""
    return all(left == right for left, right in zip(one, other, strict=False))


def _unknown_name(recipe: Recipe, finding: checks.Finding, document: Document) -> Problem:
    path = finding.path
    if finding.name_of == "column":
        known = list(tasks.find(recipe.task.type).columns)
        return explain.unknown_name(document, path, str(path[-1]), "column", known, "tasks")
    value: Any = document.value
    for part in path:
        value = value[part]
    if finding.name_of == "task":
        return explain.unknown_name(document, path, value, "task", tasks.names(), "tasks")
    known = metrics.names() if finding.name_of == "metric" else ["loss", *metrics.names()]
    return explain.unknown_name(document, path, value, "metric", known, "metrics")


def _locate(
    recipe: Recipe, document: Document, folder: Path, wrong: set[KeyPath], anywhere: bool
) -> tuple[dict[str, str], list[Problem]]:
    """Absolute places by dotted path, and what is wrong with those that the recipe names."""
    located: dict[str, str] = {}
    problems: list[Problem] = []
    data = recipe.task.data
    wanted: list[tuple[KeyPath, str | None]] = [(("base", "model"), recipe.base.model)]
    wanted.append((("adapter", "start_from"), recipe.adapter.start_from))
    if data.hub is None:
        wanted += [(("task", "data", split), getattr(data, split)) for split in ("train", "validation", "test")]
    else:
        wanted.append((("task", "data", "hub"), data.hub))
    for path, text in wanted:
        if text is None or path in wrong:
            continue
        try:
            commanded = document.is_commanded(path)
            if path[-1] == "hub":
                paths.check_hub_id(text)
            else:
                file = paths.locate_place if anywhere and not commanded else paths.locate_file
                locate = _LOCATE.get(path[-1], file)
                located[dotted(path)] = locate(text, folder, commanded=commanded or anywhere)
        except paths.PathError as error:
            help = error.help.replace("PATH.TO.KEY", dotted(path))
            problems.append(document.span(path).problem(str(error), path=dotted(path), help=help))
    return located, problems


def _resolved(recipe: Recipe, located: dict[str, str]) -> Recipe:
    written = {path: recipe.written(path) for path in located}
    base = recipe.base.model_copy(update={"model": located["base.model"]})
    start = {"start_from": located["adapter.start_from"]} if "adapter.start_from" in located else {}
    adapter = recipe.adapter.model_copy(update=start)
    splits = {path.rpartition(".")[2]: place for path, place in located.items() if path.startswith("task.data.")}
    data = recipe.task.data.model_copy(update=splits)
    task = recipe.task.model_copy(update={"data": data})
    endless = recipe.train.epochs is None and recipe.train.max_steps is None
    train = recipe.train.model_copy(update={"epochs": 1.0}) if endless else recipe.train
    resolved = recipe.model_copy(update={"base": base, "adapter": adapter, "task": task, "train": train})
    resolved._written.update(written)
    return resolved
