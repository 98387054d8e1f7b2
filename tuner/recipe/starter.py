"""A recipe to start from: it runs as it is, and every field stands in it with its meaning, range and default.

It is written from the schema, so it cannot go stale.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from inlay.tuner.data import tasks
from inlay.tuner.recipe.explain import describe, enumerated
from inlay.tuner.recipe.options import options_schema
from inlay.tuner.recipe.paths import EMBEDDED
from inlay.tuner.recipe.schema import Recipe
from inlay.tuner.recipe.yaml import KeyPath

_COLUMN = 44  # where the comments start
_HEADER = """\
# A recipe to start from ({title}). It runs as it is, on the base and the rows that inlay brings.
# Run:   inlay run {file}
# Values are the defaults where nothing else is said; a line behind `#` shows a field that is not set.
# Your own base goes into `base.model`, your own rows into `task.data`.
# Completion in editors: `inlay schema > recipe.schema.json`, then add the line
# `# yaml-language-server: $schema=recipe.schema.json`
"""


def starter(task: str, file: str) -> str:
    """The text of a starter recipe for the task; `file` is where it will be saved.

    Raises:
        LookupError: no such task.
    """
    found = tasks.find(task)
    return _HEADER.format(title=found.title, file=file) + "".join(f"{line}\n" for line in _Writer(task).lines())


class _Writer:
    def __init__(self, task: str) -> None:
        found = tasks.find(task)
        self.root = Recipe.model_json_schema()
        self.values: dict[KeyPath, Any] = {
            ("name",): f"my-{task}",
            ("base", "model"): EMBEDDED,
            ("task", "type"): task,
            ("train", "max_steps"): 120,
            ("train", "micro_batch_size"): 16,
        }
        self.examples: dict[KeyPath, Any] = {
            ("task", "columns"): {name: name for name in found.columns},
            ("task", "prompt"): found.default_prompt,
            ("eval", "metrics"): list(found.metrics),
        }
        self.left_out: set[KeyPath] = {("task", "data", "embedded")}
        if found.default_prompt is None:
            self.left_out.add(("task", "prompt"))
        if "label" not in found.columns:
            self.left_out.add(("task", "labels"))
        if "messages" not in found.columns:
            self.left_out.add(("eval", "turns"))
        if found.answers == "read":
            self.left_out |= {("eval", "few_shot"), ("train", "loss_on"), ("eval", "decoding"), ("task", "truncate")}
        else:
            self.left_out.add(("eval", "stride"))

    def lines(self) -> Iterator[str]:
        """The recipe line by line."""
        yield from self._block(self.root, (), "")

    def _block(self, schema: dict[str, Any], path: KeyPath, indent: str) -> Iterator[str]:
        for name, field in schema["properties"].items():
            here = (*path, name)
            if here in self.left_out:
                continue
            definition = self._definition(field)
            if here == ("adapter",):
                yield from self._adapter(field)
            elif here == ("task", "data"):
                yield _line(f"{indent}data: {EMBEDDED}", "the rows that inlay brings; or your own, in its place:")
                yield f"{indent}# data:"
                yield from self._block(definition, here, f"{indent}#   ")
            elif definition:
                yield _line(f"{indent}{name}:", field["description"])
                yield from self._block(definition, here, f"{indent}  ")
            else:
                yield self._field(field, here, indent)

    def _adapter(self, field: dict[str, Any]) -> Iterator[str]:
        yield _line("adapter:", field["description"])
        own = self.root["$defs"]["Adapter"]["properties"]
        yield _line("  method: lora", own["method"]["description"])
        yield self._field(own["start_from"], ("adapter", "start_from"), "  ")
        for name, option in options_schema("lora")["properties"].items():
            yield self._field(option, ("adapter", name), "  ")

    def _definition(self, field: dict[str, Any]) -> dict[str, Any]:
        for part in [field, *field.get("anyOf", [])]:
            if "$ref" in part:
                return self.root["$defs"][part["$ref"].rpartition("/")[2]]
        return {}

    def _field(self, field: dict[str, Any], path: KeyPath, indent: str) -> str:
        default = self.values.get(path, field.get("default"))
        unset = default in (None, {})
        value = self.examples.get(path, field.get("examples", [None])[0]) if unset else default
        comment = [field.get("description", ""), _allowed(field)]
        if path in self.values and "default" in field:
            comment.append("unset by default" if field["default"] is None else f"default {_text(field['default'])}")
        mark = "# " if unset and "#" not in indent else ""
        return _line(f"{indent}{mark}{path[-1]}: {_text(value)}", "; ".join(filter(None, comment)))


def _allowed(schema: dict[str, Any]) -> str:
    """What may stand there, briefly: `nf4 | fp4`, `1 to 4,096`; empty where the value shows it."""
    for part in schema.get("anyOf", [schema]):
        words = enumerated(part.get("items", part))
        if len(words) > 1:
            return " | ".join(words)
        if part.get("type") in ("integer", "number"):
            return describe(part).removeprefix("a whole number").removeprefix("a number").removeprefix(" from").strip()
    return ""


def _line(text: str, comment: str) -> str:
    return f"{text:{_COLUMN}}  # {comment}"


def _text(value: Any) -> str:
    """The value in YAML: what JSON writes is YAML 1.2, and plain words need no quotes."""
    plain = isinstance(value, str) and value.replace("-", "").replace("_", "").isalnum() and value[0].isalpha()
    return value if plain else json.dumps(value, ensure_ascii=False)
