"""The options of an adapter method as JSON Schema, with what its docstring says about each."""

from __future__ import annotations

import inspect
import re
from typing import Any

from inlay import adapters

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n     .*)*)", re.MULTILINE)


def options_schema(method: str) -> dict[str, Any]:
    """The JSON Schema of the method's options. Each is marked `semantic`: another option makes another adapter.

    Raises:
        LookupError: no such method.
    """
    options = adapters.find(method).Options
    schema = options.model_json_schema()
    notes = inspect.getdoc(options) or ""
    notes = notes.partition("Attributes:\n")[2]
    meaning = {name: " ".join(text.split()).rstrip(".") for name, text in _ATTRIBUTE.findall(notes)}
    for name, field in schema.get("properties", {}).items():
        field.setdefault("resume", "semantic")
        if name in meaning:
            field.setdefault("description", meaning[name])
    return schema
