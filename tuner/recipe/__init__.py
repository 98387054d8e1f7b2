"""The recipe: what a user asks for, checked as a whole before anything is loaded.

yaml -> overrides -> schema -> checks -> paths     every mistake on the way becomes a Problem (explain, aliases)
"""

from __future__ import annotations

from inlay.tuner.recipe.json_schema import schema
from inlay.tuner.recipe.loader import load
from inlay.tuner.recipe.resolved import recipe_hash, resolved_yaml
from inlay.tuner.recipe.schema import (
    Adapter,
    Base,
    Data,
    DecodingOptions,
    Draw,
    Eval,
    MaxRows,
    Quantization,
    Recipe,
    Task,
    Train,
)
from inlay.tuner.recipe.starter import starter
from inlay.tuner.shipped import Shipped, shipped

__all__ = [
    "Adapter",
    "Base",
    "Data",
    "DecodingOptions",
    "Draw",
    "Eval",
    "MaxRows",
    "Quantization",
    "Recipe",
    "Shipped",
    "Task",
    "Train",
    "load",
    "recipe_hash",
    "resolved_yaml",
    "schema",
    "shipped",
    "starter",
]
