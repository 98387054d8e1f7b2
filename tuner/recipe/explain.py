"""Says in plain words what is wrong with a recipe: pydantic finds it, this names place, range and nearest fix."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from inlay import adapters
from inlay.tuner.problems import Problem
from inlay.tuner.recipe import aliases, yaml
from inlay.tuner.recipe.options import options_schema
from inlay.tuner.recipe.schema import Recipe
from inlay.tuner.recipe.yaml import Document, KeyPath, dotted

_PATTERNS = {
    r"^[A-Za-z0-9_-]{1,64}$": "1 to 64 letters, digits, `_` or `-`",
    r"^[a-z]{2,4}$": "a language code such as `en` or `zh`, or `auto`",
}
_TRUE, _FALSE = {"yes", "on", "y"}, {"no", "off", "n"}
_ADAPTER: KeyPath = ("adapter",)
_FIRST: dict[KeyPath, str] = {  # what a block is probably meant to say where it is a single word
    ("base",): "model",
    ("base", "quantization"): "bits",
    _ADAPTER: "method",
    ("task",): "type",
    ("task", "data"): "train",
}
_MARGIN = 0.6  # difflib's similarity from which a name counts as meant


@dataclass(frozen=True)
class Advice:
    """What to say about an unknown key; `meant` is the dotted path that was probably meant."""

    note: str = ""
    help: str = ""
    meant: str = ""


class Words:
    """All keys that a recipe may hold, with the JSON Schema of each, given its adapter method."""

    def __init__(self, method: object) -> None:
        root = Recipe.model_json_schema()
        self.schemas: dict[KeyPath, dict[str, Any]] = dict(_walk(root, root["$defs"], ()))
        for path in [path for path in self.schemas if path[:2] == ("adapter", "options")]:
            del self.schemas[path]
        del self.schemas[_ADAPTER]["properties"]["options"]
        if isinstance(method, str) and method in adapters.names():
            options = options_schema(method)
            self.schemas[_ADAPTER]["properties"] |= options.get("properties", {})
            self.schemas.update(_walk(options, options.get("$defs", {}), ("adapter",)))

    def under(self, parent: KeyPath) -> list[str]:
        """The keys that may stand in the block at `parent`."""
        return [str(path[-1]) for path in self.schemas if path[:-1] == parent]

    def homes(self, key: str) -> list[KeyPath]:
        """Where `key` may stand."""
        return [path for path in self.schemas if path[-1] == key]

    def expected(self, path: KeyPath) -> str:
        """What may stand at `path`, in words."""
        steps = [part for part in path if not isinstance(part, int)]
        schema = self.schemas.get(tuple(steps))
        if schema is None:  # a key of a free mapping, e.g. task.columns
            return describe(self.schemas.get(tuple(steps[:-1]), {}).get("additionalProperties", {}))
        return describe(schema.get("items", schema) if len(steps) < len(path) else schema)

    def choices(self, path: KeyPath) -> list[str]:
        """The words that may stand at `path`, where it is one of a few."""
        schema = self.schemas.get(tuple(part for part in path if not isinstance(part, int)), {})
        parts = [schema, schema.get("items", {}), *schema.get("anyOf", [])]
        return [word for part in parts for word in enumerated(part)]


def _walk(schema: Mapping, definitions: Mapping, prefix: KeyPath) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        block = field
        for option in field.get("anyOf", []):
            block = option if "$ref" in option else block
        if "$ref" in block:
            block = definitions[block["$ref"].rpartition("/")[2]]
        yield (*prefix, name), {**field, **block} if block is not field else field
        yield from _walk(block, definitions, (*prefix, name))


def describe(schema: Mapping[str, Any]) -> str:
    """What a piece of JSON Schema allows, in words: `a whole number from 1 to 4096`."""
    if "properties" in schema:
        return f"a block with {', '.join(f'`{key}`' for key in schema['properties'])}"
    if "anyOf" in schema:
        parts = [describe(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))
    if words := enumerated(schema):
        return ("one of " if len(words) > 1 else "") + ", ".join(f"`{word}`" for word in words)
    kind = schema.get("type")
    if kind == "array":
        return f"a list whose items are {describe(schema['items'])}" if schema.get("items") else "a list"
    if kind == "string":
        return _PATTERNS.get(schema.get("pattern", ""), "text")
    nouns = {"boolean": "true or false", "integer": "a whole number", "number": "a number", "object": "a block"}
    return nouns.get(str(kind), "a value") + _range(schema)


def enumerated(schema: Mapping[str, Any]) -> list[str]:
    """The few values that a piece of JSON Schema allows, as YAML writes them; empty where it is not a choice."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low:,} to {high:,}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {schema[key]:,}" for key, word in words.items() if key in schema]
    return f" {' and '.join(limits)}" if limits else ""


def shown(value: object) -> str:
    """A value for a message, in words where it is not a word or a number itself."""
    if isinstance(value, dict):
        return "a block"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"the text `{printable(value)}`" if isinstance(value, str) else f"`{printable(value)}`"


def printable(value: object) -> str:
    """The value's text, cut at 60 characters and without control characters."""
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def nearest(word: str, known: list[str]) -> str:
    """The most similar of the known words, or nothing."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=_MARGIN)
    return close[0] if close else ""


def problems(error: ValidationError, document: Document) -> list[Problem]:
    """One problem for each wrong place. A missing key is not told where a misspelt one explains it."""
    adapter = document.value.get("adapter")
    words = Words(adapter.get("method") if isinstance(adapter, dict) else None)
    found: dict[KeyPath, Problem] = {}
    missing: list[KeyPath] = []
    meant: set[str] = set()
    for item in error.errors(include_url=False)[: yaml.MAX_PROBLEMS]:
        if item["type"] == "missing":
            missing.append(item["loc"])
            continue
        path = written_path(item["loc"], document.value)
        if path in found:
            continue
        if item["type"] == "extra_forbidden":
            advice = _unknown_key(path, words)
            meant.add(advice.meant)
            span = document.span(path, key=True)
            message = f"unknown key `{path[-1]}`"
            found[path] = span.problem(message, path=dotted(path), note=advice.note, help=advice.help)
        else:
            found[path] = _wrong_value(path, item, document, words)
    for path in missing:
        if not any(f"{name}.".startswith(f"{dotted(path)}.") for name in meant):
            span = document.span(path[:-1], key=True)
            meaning = words.schemas.get(path, {}).get("description", "")
            help = f"`{path[-1]}` is {meaning}" if meaning else ""
            found[path] = span.problem(f"`{dotted(path)}` is missing", path=dotted(path), help=help)
    return list(found.values())


def written_path(location: tuple[str | int, ...], value: Any) -> KeyPath:
    """The part of pydantic's location that stands in the recipe; it appends names of union members."""
    path: list[str | int] = []
    for part in location:
        inside = isinstance(value, dict) and part in value
        inside = inside or (isinstance(value, list) and isinstance(part, int) and part < len(value))
        if not inside:
            break
        path.append(part)
        value = value[part]
    return tuple(path)


def _unknown_key(path: KeyPath, words: Words) -> Advice:
    key, parent = str(path[-1]), path[:-1]
    if key == "trust_remote_code":
        return Advice("a recipe cannot allow code to run", "remove it; a model with code of its own cannot be a base")
    if key in aliases.COUNTERPARTS:
        tool, here = aliases.COUNTERPARTS[key]
        return Advice(f"{_possessive(tool)} word; here it is `{here}`", "", here.split(":")[0])
    homes = words.homes(key)
    if homes:
        home = homes[0]
        return Advice(f"belongs under `{dotted(home[:-1])}`" if home[:-1] else "belongs at the top", "", dotted(home))
    if key in aliases.ABSENT:
        tool, why = aliases.ABSENT[key]
        return Advice(f"{_possessive(tool)} word; it has no counterpart here", why)
    owners = [name for name in adapters.names() if key in adapters.find(name).Options.model_fields]
    siblings = words.under(parent)
    close = nearest(key, siblings)
    if close:
        return Advice(f"did you mean `{close}`?", "", dotted((*parent, close)))
    if parent == _ADAPTER and owners:
        return Advice(f"an option of {', '.join(owners)}", f"this method takes {_listed(siblings)}")
    close = nearest(key, [str(path[-1]) for path in words.schemas])
    if close:
        home = words.homes(close)[0]
        return Advice(f"did you mean `{dotted(home)}`?", "", dotted(home))
    return Advice("", f"`{dotted(parent)}` takes {_listed(siblings)}" if parent else f"known: {_listed(siblings)}")


def _possessive(tool: str) -> str:
    if tool.startswith("a "):
        return tool
    return f"{tool}'" if tool.endswith("s") else f"{tool}'s"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "no keys"


def _wrong_value(path: KeyPath, item: Mapping[str, Any], document: Document, words: Words) -> Problem:
    value: Any = document.value
    for part in path:
        value = value[part]
    span = document.span(path)
    if item["type"] == "unknown_method":
        if reason := adapters.reason_against(value):
            return span.problem(f"adapter method `{printable(value)}` is not offered: {reason}", path=dotted(path))
        return unknown_name(document, path, value, "adapter method", adapters.names(), "methods")
    if item["type"] in ("value_error", "assertion_error"):
        return span.problem(str(item["ctx"]["error"]), path=dotted(path))
    expected = words.expected(path)
    return span.problem(
        f"`{dotted(path)}` is {shown(value)}; expected {expected}",
        path=dotted(path),
        help=_repair(path, value, item["type"], words.choices(path)),
    )


def unknown_name(document: Document, path: KeyPath, value: str, kind: str, known: list[str], listing: str) -> Problem:
    """The problem of a method, task or metric that does not exist."""
    close = nearest(value, known)
    note = f"did you mean `{close}`?" if close else ""
    help = f"known: {', '.join(known)} (`inlay ls {listing}` says what each does)"
    return document.span(path).problem(f"unknown {kind} `{printable(value)}`", path=dotted(path), note=note, help=help)


def _repair(path: KeyPath, value: Any, kind: str, choices: list[str]) -> str:
    if path in _FIRST and isinstance(value, (str, int)):
        return f"write `{path[-1]}: {{{_FIRST[path]}: {printable(value)}}}`"
    if kind == "list_type" and isinstance(value, str):
        return f"write `{path[-1]}: [{printable(value)}]`"
    if isinstance(value, str):
        if close := nearest(value.lower(), choices):
            return f"did you mean `{close}`?"
        if kind.startswith("bool") and value.lower() in _TRUE | _FALSE:
            return f"write `{'true' if value.lower() in _TRUE else 'false'}`"
        if value.lower() == "none":
            return "write `null`, or leave the line out"
        if kind.startswith(("int", "float")) and isinstance(_number(value), (int, float)):
            return f"write `{_number(value)}` without quotes or separators"
    if kind.startswith("string_type") and isinstance(value, (int, float)):
        return "put quotes round it"
    if kind.startswith("int") and isinstance(value, float) and value.is_integer():
        return f"write `{int(value)}`"
    return ""


def _number(text: str) -> Any:
    try:
        return yaml.scalar(re.sub(r"(?<=\d)[_,](?=\d)", "", text.strip()))
    except ValueError:
        return None
