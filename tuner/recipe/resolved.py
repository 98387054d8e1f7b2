"""A recipe as it was understood, every default filled in: as text to run again, and as a hash to compare by."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import yaml

from inlay.tuner.recipe.schema import Recipe
from inlay.tuner.recipe.yaml import scalar

_PLACES = (
    ("base", "model"),
    ("adapter", "start_from"),
    ("task", "data", "train"),
    ("task", "data", "validation"),
    ("task", "data", "test"),
)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would not read as text, in addition to what YAML 1.1 would not."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    try:
        quoted = not isinstance(scalar(text), str)
    except ValueError:
        quoted = True
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if quoted else None)


_Dumper.add_representer(str, _represent_text)


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe in full as YAML; local paths are relative to the current directory."""
    value = recipe.model_dump(mode="json")
    for *blocks, key in _PLACES:
        block = _inner(value, blocks)
        if isinstance(block[key], str) and Path(block[key]).is_absolute():
            block[key] = os.path.relpath(block[key])
    return as_yaml(value)


def as_yaml(value: dict[str, Any]) -> str:
    """Plain values as YAML that the reader of recipes reads back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 in hex over all fields, paths as the user wrote them: the same on every machine."""
    value = recipe.model_dump(mode="json")
    for *blocks, key in _PLACES:
        _inner(value, blocks)[key] = recipe.written(".".join((*blocks, key)))
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _inner(value: dict[str, Any], blocks: list[str]) -> dict[str, Any]:
    for name in blocks:
        value = value[name]
    return value
