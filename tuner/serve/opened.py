"""A model that is ready to answer: a run, an adapter on its base, or a model as it is; no data is read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inlay import adapters
from inlay.adapters import Adapted, Facts, Method, Training
from inlay.eval import Decoding
from inlay.eval.scoring import Scorable
from inlay.tuner import adapter_folder, saved
from inlay.tuner import base as base_models
from inlay.tuner.base import Base
from inlay.tuner.data import tasks
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.data.tasks import Task
from inlay.tuner.model_files import ModelFiles, locate
from inlay.tuner.plain_weights import with_plain_weights
from inlay.tuner.problems import MachineError, Problem, RequestError
from inlay.tuner.quantization import HELD, ComputeName, Quantization, settle
from inlay.tuner.recipe import Adapter, Eval, Recipe
from inlay.tuner.report import read_record
from inlay.tuner.serve.decoding import Wishes

LONGEST_REPLY = 512  # of a model that no recipe speaks of
WIDTHS: Mapping[str, ComputeName] = {"F64": "fp32", "F32": "fp32", "BF16": "bf16", "F16": "fp16"}


@dataclass(frozen=True)
class Target:
    """What a user named, before its weights are loaded.

    Attributes:
        name: as the user named it.
        files: of the base.
        quantization: how its weights are to be held.
        attention: its kernel.
        facts: what is known of it.
        adapter: the folder of the adapter; None for a model as it is.
        method: how it was adapted.
        renderer: the one that it was trained with.
        task: what it was trained for; None where no recipe says so.
        columns: the task's column: the column in the user's data.
        truncate: a document that is too long may be cut.
        decoding: how it answers.
        batch_size: rows at once.
    """

    name: str
    files: ModelFiles
    quantization: Quantization
    attention: str
    facts: Facts
    adapter: Path | None
    method: Method
    renderer: Renderer
    task: Task | None
    columns: dict[str, str]
    truncate: bool
    decoding: Decoding
    batch_size: int

    @property
    def context(self) -> int | None:
        """Tokens for prompt and answer together; None where there is no limit."""
        return _context(self.facts, self.method)

    @property
    def plain_layers(self) -> tuple[str, ...]:
        """The layers that its adapter needs as plain ones."""
        return self.method.targets(self.facts) if self.method.needs_float_weights else ()

    def scorable(self, adapted: Adapted) -> Scorable:
        """What is called to generate or to choose."""
        prepends = self.method.prepends
        return Scorable(adapted.model, adapted.inner, self.facts.kind, prepends, self.renderer.pad_id)


@dataclass(frozen=True)
class Opened:
    """A model with all that an answer needs: the base, with the adapter in it where there is one."""

    target: Target
    base: Base
    adapted: Adapted

    @property
    def scorable(self) -> Scorable:
        """What is called to generate or to choose."""
        return self.target.scorable(self.adapted)

    @contextlib.contextmanager
    def untouched(self) -> Iterator[Scorable]:
        """Inside, the base without its adapter."""
        with self.adapted.disabled():
            yield dataclasses.replace(self.scorable, prepends="nothing")

    @property
    def sha256(self) -> str:
        """Of the base's files and, after a dash, of the adapter's weights."""
        adapter = self.target.adapter
        return f"{self.base.sha256}-{adapter_folder.weights_sha256(adapter) if adapter else ''}"


@dataclass(frozen=True)
class _Known:
    """What is known of a target before its weights are loaded."""

    model: str
    revision: str | None
    quantization: Quantization | None  # None: as its files hold it
    attention: str
    adapter: Adapter
    folder: Path | None
    recipe: Recipe | None
    task: Task | None


def examine(name: str, *, base: str | None = None, wishes: Wishes | None = None) -> Target:
    """Looks up a run, an adapter's folder, or a model (a folder, a hub id or `embedded`).

    A run answers as its recipe says: on its base, quantized as it was, with its prompt and its decoding. An adapter
    alone is put on the base that is noted beside it. A model as it is keeps the precision of its files, so that what
    was exported is not quantized a second time.

    Args:
        base: the base of an adapter or run, where it is elsewhere now.
        wishes: decoding that is asked for in the place of the recipe's.

    Raises:
        RequestError: there is no such thing, or it does not fit together.
        MachineError: the base cannot be had here.
    """
    run, folder = saved.find(Path(name))
    if base and not folder:
        message = f"`{name}` is neither a run nor an adapter, and --base names the base of one"
        raise RequestError(message, help="leave --base out")
    known = _of_run(run, folder, base) if run else _of_adapter(folder, base) if folder else _of_model(name)
    files = _located(known, movable=bool(folder and not base))
    if folder:
        adapter_folder.refuse_other_base(folder, files)
    quantization = _held(known, files)
    facts = base_models.read_facts(base_models.read_config(files), quantization.bits)
    method = adapters.find(known.adapter.method)(known.adapter.options)
    if reason := method.refusal(facts, Training(gradient_checkpointing=False)):
        raise RequestError(Problem(reason, path="adapter"))
    context, recipe = _context(facts, method), known.recipe
    return Target(
        name=Path(name).name if run or folder else files.name,
        files=files,
        quantization=quantization,
        attention=known.attention,
        facts=facts,
        adapter=folder,
        method=method,
        renderer=Renderer(base_models.read_tokenizer(files), facts.kind),
        task=known.task,
        columns=dict(recipe.task.columns) if recipe else {},
        truncate=bool(recipe and recipe.task.truncate),
        decoding=(wishes or Wishes()).applied(_decoding(recipe, context), context),
        batch_size=recipe.eval.batch_size if recipe else Eval().batch_size,
    )


def open_target(name: str, *, base: str | None = None, wishes: Wishes | None = None) -> Opened:
    """Looks up and opens; arguments as for `examine`.

    Raises:
        RequestError: as `examine`, or the adapter does not fit its base.
        MachineError: the base cannot be had or held here.
    """
    target = examine(name, base=base, wishes=wishes)
    opened = open_base(target, target.plain_layers)
    return Opened(target, opened, saved.open_adapter(target.method, target.facts, opened, target.adapter))


def open_base(target: Target, plain_layers: Sequence[str] = ()) -> Base:
    """Loads the weights of the base.

    Args:
        plain_layers: those that are not to stay quantized.

    Raises:
        RequestError, MachineError: it cannot be loaded.
    """
    base = base_models.open_base(
        target.files,
        target.quantization,
        target.facts,
        target.renderer.tokenizer,
        attention=target.attention,
        float_targets=plain_layers,
    )
    return with_plain_weights(base)


def _located(known: _Known, *, movable: bool) -> ModelFiles:
    """The files of the base; `movable`: --base may say where they are now."""
    try:
        return locate(known.model, known.revision)
    except (RequestError, MachineError) as failure:
        if not movable:
            raise
        help = "if the base is elsewhere now, name it: --base MODEL"
        raise type(failure)([dataclasses.replace(problem, help=help) for problem in failure.problems]) from None


def _context(facts: Facts, method: Method) -> int | None:
    """What is left of the base's context beside what the adapter prepends."""
    return None if facts.context is None else facts.context - method.prepended


def _decoding(recipe: Recipe | None, context: int | None) -> Decoding:
    """The recipe's; where there is none, greedy, and at most half of the context."""
    if recipe:
        return Decoding(**recipe.eval.decoding.model_dump(), seed=recipe.seed)
    return Decoding(max_new_tokens=min(LONGEST_REPLY, (context or 2 * LONGEST_REPLY) // 2))


def _of_run(run: Path, folder: Path | None, base: str | None) -> _Known:
    overrides = ["task.data=embedded"]  # its data may be gone: what it was trained on is not read here
    if base:
        overrides += [f"base.model={json.dumps(base)}", "base.revision=null"]
    recipe = saved.own_recipe(run, overrides)
    return _Known(
        model=recipe.base.model,
        revision=recipe.base.revision,
        quantization=Quantization(**recipe.base.quantization.model_dump()),
        attention=recipe.base.attention,
        adapter=recipe.adapter,
        folder=folder,
        recipe=recipe,
        task=_task(recipe, run),
    )


def _task(recipe: Recipe, run: Path) -> Task:
    """The run's task. Labels that its recipe left to the training rows are those that its benchmark chose among."""
    kind, labels = tasks.find(recipe.task.type), recipe.task.labels
    if kind.answers == "choose" and not labels:
        measured = read_record(run).eval
        if measured is None:
            message = f"the run `{run}` was stopped before its benchmark, so its labels are not known"
            raise RequestError(message, help="list them under task.labels in its recipe.yaml")
        labels = {label: label for label in measured.labels}
    return kind(prompt=recipe.task.prompt, labels=labels, all_turns=recipe.eval.turns == "all")


def _of_adapter(folder: Path, base: str | None) -> _Known:
    """An adapter without its run: a note beside it names its base; PEFT's own configuration may name one too."""
    noted, quantization = adapter_folder.noted_base(folder)
    model = base or noted
    if model is None:
        message = f"nothing beside the adapter in `{folder}` says which base it belongs on"
        raise RequestError(message, help="name it: --base MODEL")
    return _Known(
        model=model,
        revision=None,
        quantization=adapter_folder.quantization_called(quantization),
        attention="sdpa",
        adapter=adapter_folder.settled(folder),
        folder=folder,
        recipe=None,
        task=None,
    )


def _of_model(target: str) -> _Known:
    nothing = Adapter.model_validate({"method": "none"})
    return _Known(target, None, None, "sdpa", nothing, None, None, None)


def _held(known: _Known, files: ModelFiles) -> Quantization:
    """As it was trained on; else in the precision of the widest tensor of the files, so that nothing is rounded."""
    stored, asked = files.stored, known.quantization
    if asked:
        return settle(asked, HELD, stored, files.name)
    found = {WIDTHS[name] for name in files.dtypes & WIDTHS.keys()}
    if stored:
        found.add(stored.compute_dtype)
    dtype = found.pop() if len(found) == 1 else "fp32"
    if stored:
        return settle(Quantization(compute_dtype=dtype), (), stored, files.name)
    return Quantization(bits=32) if dtype == "fp32" else Quantization(bits=16, compute_dtype=dtype)
