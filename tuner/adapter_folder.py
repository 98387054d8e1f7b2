"""Saved adapters: where one is, what made it, and on which base it belongs."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from pathlib import Path

from pydantic import ValidationError

from inlay import adapters
from inlay.tuner.base import Base
from inlay.tuner.model_files import ModelFiles
from inlay.tuner.problems import Problem, RequestError, explained
from inlay.tuner.quantization import Quantization
from inlay.tuner.recipe import Adapter, Recipe

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE, RUN = "base.json", "run.json"
PEFT_BASE = "base_model_name_or_path"  # in adapter_config.json


def find(target: Path) -> Path | None:
    """The adapter's folder in what `target` names: a run, or an adapter's folder; None where it is neither.

    Raises:
        RequestError: it is a run without an adapter.
    """
    if (target / RUN).is_file():
        if not (target / "adapter").is_dir():
            raise RequestError(Problem(f"the run `{target}` has no adapter yet", help="it was stopped before training"))
        return target / "adapter"
    return target if (target / CONFIG).is_file() else None


def as_saved(recipe: Recipe, folder: Path, *, asked_first: bool) -> Recipe:
    """The recipe with the method of the adapter in `folder` and the options that it settles.

    Args:
        asked_first: an option that the recipe names and that differs is an error; otherwise the adapter's own counts.

    Raises:
        RequestError: the adapter is of no known method, or its options cannot be taken over.
    """
    with explained(f"the adapter in `{folder}` cannot be used", ValueError):
        method, settled = adapters.recognize(folder)
        own = recipe.adapter
        given = {}
        if own.method == method:
            # What only a fresh adapter heeds is over, and where it is asked for first it is refused below.
            over = set() if asked_first else set(adapters.find(method).fresh)
            given = {name: getattr(own.options, name) for name in own.options.model_fields_set - over}
        start = {"start_from": own.start_from} if own.start_from else {}
        given, settled = _plain(given), _plain(settled)
        differing = [name for name in settled if given.get(name, settled[name]) != settled[name]]
        if asked_first and differing:
            name = differing[0]
            message = f"the adapter in `{folder}` has {name} = {settled[name]}, and the recipe says {given[name]}"
            help = "remove the line: the adapter settles it"
            raise RequestError(Problem(message, path=f"adapter.{name}", help=help))
        idle = next((name for name in adapters.find(method).fresh if asked_first and name in given), None)
        if idle:
            message = f"`{idle}` has no effect on an adapter that is continued"
            raise RequestError(Problem(message, path=f"adapter.{idle}", help="remove the line"))
        try:
            adapter = Adapter.model_validate({"method": method, **start, **given, **settled})
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"]) from error
    other = recipe.model_copy(update={"adapter": adapter})
    other._written = recipe._written
    return other


def continued(recipe: Recipe) -> tuple[Recipe, Path | None]:
    """The recipe with the options of the adapter that it starts from, and that adapter's folder; or as it is.

    Raises:
        RequestError: what it starts from is no adapter, or one of another method.
    """
    if recipe.adapter.start_from is None:
        return recipe, None
    shown = recipe.written("adapter.start_from")
    folder = find(Path(recipe.adapter.start_from))
    if folder is None:
        message = f"`{shown}` is neither a run nor an adapter: it holds no {CONFIG}"
        raise RequestError(Problem(message, path="adapter.start_from"))
    saved = as_saved(recipe, folder, asked_first=True)
    if saved.adapter.method != recipe.adapter.method:
        message = f"`{shown}` is an adapter of the method {saved.adapter.method}, not {recipe.adapter.method}"
        help = f"write `method: {saved.adapter.method}`"
        raise RequestError(Problem(message, path="adapter.method", help=help))
    return saved, folder


def settled(folder: Path) -> Adapter:
    """The method of the adapter in `folder`, with the options that its own configuration settles.

    Raises:
        RequestError: the adapter is of no known method.
    """
    with explained(f"the adapter in `{folder}` cannot be used", ValueError):
        method, options = adapters.recognize(folder)
        try:
            return Adapter.model_validate({"method": method, **_plain(options)})
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"]) from error


def weights_sha256(folder: Path) -> str:
    """Of the adapter's weights file; empty where it has none."""
    path = folder / WEIGHTS
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def write_base(folder: Path, base: Base) -> None:
    """Notes beside an adapter on which base it was trained."""
    noted = {"model": base.files.name, "sha256": base.sha256, "quantization": str(base.quantization)}
    (folder / BASE).write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")


def copy_base(folder: Path, to: Path) -> None:
    """Puts the note of an adapter's base, if it has one, beside another adapter."""
    if (folder / BASE).is_file():
        shutil.copyfile(folder / BASE, to / BASE)


def noted_base(folder: Path) -> tuple[str | None, str]:
    """The base that is noted beside an adapter, here or by PEFT, and how it was quantized; None and empty where that is
    not noted.

    Raises:
        RequestError: the note is damaged.
    """
    name, keys = (BASE, ("model", "quantization")) if (folder / BASE).is_file() else (CONFIG, (PEFT_BASE, ""))
    with explained(f"{folder / name} is damaged", ValueError, AttributeError):
        noted = json.loads((folder / name).read_text(encoding="utf-8"))
        model, quantization = (noted.get(key) for key in keys)
    return str(model) if model else None, str(quantization or "")


def refuse_other_base(folder: Path, files: ModelFiles) -> None:
    """Checks that the adapter was trained on the base of these files, where a note beside it says on which.

    Raises:
        RequestError: it was trained on another.
    """
    path = folder / BASE
    if not path.is_file():
        return  # made elsewhere: names and shapes of its tensors are all that can be checked
    with explained(f"{path} is damaged", ValueError, KeyError, TypeError):
        known = str(json.loads(path.read_text(encoding="utf-8"))["sha256"])
    found = files.sha256()
    if known != found:
        raise RequestError(
            Problem(
                f"the base `{files.name}` is not the one this adapter was trained on "
                f"(sha256 {found[:12]}, trained on {known[:12]})",
                path="base.model",
                help="point base.model at the original files: --set base.model=FOLDER",
            )
        )


def quantization_called(text: str) -> Quantization | None:
    """The quantization whose name this is; None where it is none's."""
    for bits, kind, double in itertools.product((4, 8, 16, 32), ("nf4", "fp4"), (True, False)):
        candidate = Quantization(bits=bits, quant_type=kind, double_quant=double)
        if str(candidate) == text:
            return candidate
    return None


def _plain(options: dict[str, object]) -> dict[str, object]:
    """Options as JSON has them."""
    return {name: list(value) if isinstance(value, (tuple, set)) else value for name, value in options.items()}
