"""The JSON Schema of a recipe, for editors: the one place that looks at every method, task and metric."""

from __future__ import annotations

from typing import Any

from inlay import adapters
from inlay.eval import metrics
from inlay.tuner.data import tasks
from inlay.tuner.recipe import paths
from inlay.tuner.recipe.options import options_schema
from inlay.tuner.recipe.schema import Recipe


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a recipe. `resume` tells whether a field may change before a run is resumed."""
    recipe = Recipe.model_json_schema()
    definitions = recipe["$defs"]
    definitions["Adapter"] = {"description": definitions["Adapter"]["description"], "oneOf": _methods(definitions)}
    definitions["Data"] = {"anyOf": [{"const": paths.EMBEDDED}, definitions.pop("Data")]}
    definitions["Task"]["properties"]["type"]["enum"] = tasks.names()
    named = definitions["Eval"]["properties"]["metrics"]["anyOf"][0]
    named["items"] = {"enum": metrics.names()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **recipe, "title": "inlay recipe"}


def _methods(definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """One object schema for each method, its options beside `method`; what they refer to joins `definitions`."""
    own = definitions["Adapter"]["properties"]
    union = []
    for name in adapters.names():
        options = options_schema(name)
        definitions.update(options.pop("$defs", {}))
        options["title"] = adapters.find(name).title
        options["properties"] = {
            "method": {**own["method"], "const": name},
            "start_from": own["start_from"],
            **options.get("properties", {}),
        }
        options["required"] = ["method", *options.get("required", [])]
        union.append(options)
    return union
