"""The specification of a comparison: one recipe, the rows that differ from it, seeds, budget and search.

    name: summaries
    recipe: quickstart                       # a file beside this one, or a shipped name
    overrides: [train.max_steps=60]          # what all rows change, as `--set` would
    seeds: 3
    rows:
      - adapter: {method: lora, r: 8}
      - label: IA3, fast
        adapter: {method: ia3}
        train: {learning_rate: 1e-2}

A row's learning rate is the method's own where neither the row nor an override names one: the recipe's was chosen for
its own method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.recipe import explain, yaml
from inlay.tuner.recipe.schema import Block, Name, Text
from inlay.tuner.recipe.yaml import Document, KeyPath, dotted
from inlay.tuner.shipped import comparisons

Seeds = Annotated[int, Field(ge=1, le=100)] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
_SPACES = "expected a list of values, `{times: [...]}` or `{low: ..., high: ...}`"
# What decides which tokens are read, and how many rows: equal for all rows, or they could not be compared.
SHARED = ("train.max_length", "train.loss_on", "train.max_steps", "train.epochs")
Values = Annotated[list[Any], Field(min_length=2, max_length=100)]


class Row(Block):
    """One row: the blocks of the recipe that it replaces (`adapter`) or changes (`train`)."""

    label: Text | None = Field(None, description="what to call it; unset: the method, with what tells it apart")
    adapter: dict[str, Any] = Field(description="the adapter block, as in a recipe")
    train: dict[str, Any] = Field({}, description="fields of the train block, such as learning_rate")

    @model_validator(mode="after")
    def _reads_what_others_read(self) -> Row:
        for name in self.train:
            if f"train.{name}" in SHARED[:2]:
                raise ValueError(f"all rows read the same tokens; `{name}` stands under `overrides`, for all of them")
        return self


class Times(Block):
    """Multiples of each method's own learning rate."""

    times: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2)] = Field(description="factors")


class Between(Block):
    """A range to draw from."""

    low: float = Field(description="smallest", gt=0)
    high: float = Field(description="largest", gt=0)
    log: bool = Field(True, description="draw evenly in the logarithm")

    @model_validator(mode="after")
    def _ordered(self) -> Between:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; expected low below high")
        return self


Space = Values | Times | Between


class Search(Block):
    """The same number of trials for each method, on the validation rows alone."""

    trials: int = Field(4, ge=2, le=1000, description="trials of each row")
    space: dict[str, Space] = Field(
        {"train.learning_rate": Times(times=[0.3, 1.0, 3.0, 10.0])}, min_length=1, description="what is searched"
    )
    objective: Text = Field("loss", description="what decides on the validation rows: `loss`, or a metric")


class References(Block):
    """Rows to hold the methods against."""

    few_shot: int = Field(0, ge=0, le=64, description="the untouched base with so many examples in context; 0: none")
    full: bool = Field(False, description="full fine-tuning of the dequantized base")
    full_learning_rate: float | None = Field(None, gt=0, le=1, description="its learning rate; unset: its own")


class Spec(Block):
    """A comparison as it is written."""

    name: Name = Field(description="names the comparison")
    recipe: Text = Field(description="a recipe's file, or a name that `inlay ls recipes` shows")
    overrides: list[Text] = Field([], description="`dotted.path=value` for all rows")
    rows: list[Row] = Field(min_length=1, max_length=100, description="the rows")
    seeds: Seeds = Field(3, description="how many, or which")
    score: Text | None = Field(None, description="the score that orders the rows; unset: the task's first")
    references: References = Field(default_factory=References, description="rows to hold the methods against")
    match_parameters: int | None = Field(None, ge=1, description="pick each method's size nearest to so many weights")
    search: Search | None = Field(None, description="a search of learning rates and other fields")
    outside: Text | None = Field(None, description="a .jsonl file whose first texts measure forgetting")


def read(path_or_name: str | Path) -> tuple[Spec, Document, Path]:
    """The specification in a file, or the shipped one of that name; its document, for places; and its folder.

    Raises:
        RequestError: every mistake in it, with file and line.
    """
    path = _find(str(path_or_name))
    try:
        data = path.read_bytes()[: yaml.MAX_BYTES + 1]
    except OSError as error:
        message = f"the comparison cannot be read: {str(error.strerror).lower()}"
        raise RequestError(Problem(message, file=explain.printable(path_or_name))) from error
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    document = yaml.read(data, str(shown))
    if document.problems:
        raise RequestError(document.problems)
    value = {**document.value, "match_parameters": _count(document.value.get("match_parameters"))}
    try:
        spec = Spec.model_validate({key: item for key, item in value.items() if item is not None}, strict=False)
    except ValidationError as error:
        raise RequestError(list(_problems(error, document))) from None
    return spec, document, path.parent


def is_spec(path_or_name: str) -> bool:
    """Whether the file, or the shipped file of this name, is a comparison: it has rows, or names a recipe."""
    known = {found.name for found in comparisons()}
    path = Path(path_or_name)
    if not path.is_file():
        return path_or_name in known
    with path.open("rb") as file:
        return not {"rows", "recipe"}.isdisjoint(yaml.read(file.read(yaml.MAX_BYTES), path_or_name).value)


def seeds_of(spec: Spec) -> tuple[int, ...]:
    """The seeds one by one."""
    return tuple(range(spec.seeds)) if isinstance(spec.seeds, int) else tuple(dict.fromkeys(spec.seeds))


def _find(path_or_name: str) -> Path:
    path = Path(path_or_name)
    known = {found.name: found.path for found in comparisons()}
    if path.is_file() or path_or_name not in known:
        return path
    return known[path_or_name]


def _count(value: Any) -> Any:
    """`100k` and `1.5M` as whole numbers; anything else as it is."""
    if isinstance(value, str) and value[-1:] in ("k", "K", "M"):
        try:
            return round(float(value[:-1]) * {"k": 1e3, "K": 1e3, "M": 1e6}[value[-1]])
        except ValueError:
            return value
    return value


def place_of(document: Document, path: KeyPath) -> yaml.Span:
    """Where `path` stands, or the nearest thing in its own row: the item of a list has no key that would say."""
    known = [other for other in (*document.keys, *document.values) if other[:2] == path[:2]]
    return document.span(_nearest(path, known) if path[:1] == ("rows",) and len(path) > 1 and known else path)


def _nearest(path: KeyPath, known: list[KeyPath]) -> KeyPath:
    """The known path that shares most with `path`; of several, the first in the file."""

    def shared(other: KeyPath) -> int:
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, other, strict=False)))

    return max(known, key=shared)


def _problems(error: ValidationError, document: Document) -> Iterator[Problem]:
    told: set[KeyPath] = set()
    # Of the members of a union, what a rule of ours says is told before what types say.
    for item in sorted(error.errors(include_url=False), key=lambda item: item["type"] != "value_error"):
        path = explain.written_path(item["loc"], document.value)
        if path[:2] == ("search", "space"):
            path = path[:3]
        if path in told:
            continue
        told.add(path)
        if item["type"] == "missing" and path[:2] != ("search", "space"):
            span = place_of(document, path)
            yield span.problem(f"`{item['loc'][-1]}` is missing", path=dotted((*path, item["loc"][-1])))
        elif item["type"] == "extra_forbidden":
            known = _fields_beside(path)
            close = explain.nearest(str(path[-1]), known)
            help = f"did you mean `{close}`?" if close else f"known: {', '.join(f'`{name}`' for name in known)}"
            yield document.span(path, key=True).problem(f"unknown key `{path[-1]}`", path=dotted(path), help=help)
        else:
            value: Any = document.value
            for part in path:
                value = value[part]
            if item["type"] == "value_error":
                yield place_of(document, path).problem(str(item["ctx"]["error"]), path=dotted(path))
                continue
            said = _SPACES if path[:2] == ("search", "space") else item["msg"].lower()
            message = f"`{dotted(path)}` is {explain.shown(value)}: {said}"
            yield place_of(document, path).problem(message, path=dotted(path))


def _fields_beside(path: KeyPath) -> list[str]:
    blocks: Mapping[str, type[Block]] = {"rows": Row, "search": Search, "references": References}
    return list((blocks[str(path[0])] if len(path) > 1 else Spec).model_fields)


