"""`--set a.b=c`: puts one value into a parsed recipe, and remembers that the command line gave it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from inlay.tuner.recipe import yaml
from inlay.tuner.recipe.yaml import Document, KeyPath, Span

_ARGUMENT = re.compile(r"(?P<path>[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*)=(?P<value>.*)", re.DOTALL)


def apply(document: Document, overrides: Sequence[str]) -> None:
    """Applies the overrides in order; what is wrong with them joins `document.problems`."""
    for argument in overrides:
        span = Span(f"--set {_shown(argument)}")
        if found := yaml.control_character(argument):
            document.problems.append(span.problem(f"the character {found} may not stand in an override"))
            continue
        match = _ARGUMENT.fullmatch(argument)
        if not match:
            message = "an override is `dotted.path=value`"
            document.problems.append(span.problem(message, help="for example `--set train.max_steps=50`"))
            continue
        path: KeyPath = tuple(match["path"].split("."))
        problem, value = _value(match["value"])
        if problem:
            document.problems.append(span.problem(problem, path=match["path"]))
        else:
            _put(document, path, value, span)


def _shown(argument: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in argument[: yaml.LONGEST_SHOWN])


def _value(text: str) -> tuple[str, Any]:
    """What went wrong, or nothing, and the value of the text right of `=`: a bracket or a quote opens YAML."""
    if not text.lstrip().startswith(("[", "{", '"', "'")):
        try:
            return "", yaml.scalar(text.strip())
        except ValueError as error:
            return str(error), None
    inner = yaml.read(f"value: {text}".encode(), "--set")
    if inner.problems:
        return f"the value cannot be read: {inner.problems[0].message}", None
    return "", inner.value["value"]


def _put(document: Document, path: KeyPath, value: Any, span: Span) -> None:
    block = document.value
    for end in range(1, len(path)):
        here = path[:end]
        inner = block.get(path[end - 1])
        if here == ("task", "data") and inner == "embedded":
            inner = {"embedded": True}
        if inner is None:
            inner = {}
            document.keys.setdefault(here, span)
        if not isinstance(inner, dict):
            message = f"`{yaml.dotted(here)}` is not a block, so it holds no `{path[end]}`"
            document.problems.append(span.problem(message, path=yaml.dotted(path)))
            return
        block[path[end - 1]] = inner
        block = inner
    for spans in (document.keys, document.values):
        for old in [known for known in spans if known[: len(path)] == path]:
            del spans[old]
    block[path[-1]] = value
    document.keys[path] = span
    document.commanded.add(path)
