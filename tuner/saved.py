"""What is on disk already, opened again: a run, or the adapter that a run or anybody else left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inlay.adapters import Adapted, Facts, Method, names
from inlay.tuner import adapter_folder
from inlay.tuner.base import Base
from inlay.tuner.problems import explained
from inlay.tuner.recipe import Recipe, load


def find(target: Path) -> tuple[Path | None, Path | None]:
    """The run and the adapter folder that `target` names, if it names one.

    Raises:
        RequestError: it is a run without an adapter.
    """
    adapter = adapter_folder.find(target)
    if adapter is None:
        return None, None
    run = adapter.absolute().parent if adapter == target else target
    return (run if (run / "run.json").is_file() else None), adapter


def own_recipe(run: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that the run in this folder was made with.

    Args:
        overrides: each `dotted.path=value`.

    Raises:
        RequestError: it, or an override, cannot be used.
    """
    # inlay wrote this file itself, from paths that the user had given on the command line.
    # What its training began with may be gone: the adapter that came of it holds it.
    return load(run / "recipe.yaml", [*overrides, "adapter.start_from=null"], anywhere=True)


def open_adapter(method: Method, facts: Facts, base: Base, adapter: Path | None) -> Adapted:
    """The adapter saved in a folder, on its base; where there is none, what the method begins with.

    Raises:
        RequestError: it does not fit the method or the base.
    """
    if adapter is None:
        return method.attach(base.model, facts, seed=0, steps=0)
    help = f"it is loaded as {method.title}; known methods: {', '.join(names())}"
    with explained(f"the adapter in `{adapter}` does not fit", ValueError, help=help):
        return method.load(adapter, base.model, facts)
