"""Rules of a recipe that no single field can hold. Each yields where, what, and what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from inlay.eval import metrics
from inlay.tuner.data import tasks
from inlay.tuner.recipe.paths import EMBEDDED
from inlay.tuner.recipe.schema import Recipe
from inlay.tuner.recipe.yaml import KeyPath


class Finding(NamedTuple):
    """A rule that is broken.

    Attributes:
        path: where.
        message, help: what, and what to write instead.
        name_of: the value is an unknown name of this kind, to be answered with the nearest.
        reads: other places that the rule looks at; while something is wrong there, it proves nothing.
    """

    path: KeyPath
    message: str
    help: str = ""
    name_of: str = ""
    reads: tuple[KeyPath, ...] = ()


def findings(recipe: Recipe) -> Iterator[Finding]:
    """All broken rules, in the order of the recipe's blocks."""
    for check in _CHECKS:
        yield from check(recipe)


def _embedded_base(recipe: Recipe) -> Iterator[Finding]:
    if recipe.base.model == EMBEDDED and recipe.base.revision is not None:
        yield Finding(("base", "revision"), "`revision` is about a model on the hub", "remove the line")


def _quantization(recipe: Recipe) -> Iterator[Finding]:
    chosen = recipe.base.quantization
    if chosen.bits != 4:
        for name, default in (("quant_type", "nf4"), ("double_quant", True)):
            if getattr(chosen, name) != default:
                message = f"`{name}` is about 4-bit weights; this base has {chosen.bits} bits"
                yield Finding(("base", "quantization", name), message, "remove the line, or set `bits: 4`")


def _task_type(recipe: Recipe) -> Iterator[Finding]:
    if recipe.task.type not in tasks.names():
        yield Finding(("task", "type"), "", name_of="task")


def _data_source(recipe: Recipe) -> Iterator[Finding]:
    data, here = recipe.task.data, ("task", "data")
    if data.embedded:
        for name in ("hub", "train", "validation", "test", "draw"):
            if getattr(data, name) is not None:
                message = f"`embedded` brings its own rows; `{name}` names others"
                yield Finding((*here, name), message, "remove one of the two (`embedded: false`)")
    elif data.hub is None and data.train is None:
        message = "`task.data` names no training rows"
        yield Finding(here, message, "write `data: embedded`, `data: {train: FILE}` or `data: {hub: ID}`")
    if data.hub is None:
        for name in ("config", "revision"):
            if getattr(data, name) is not None:
                yield Finding((*here, name), f"`{name}` is about a dataset on the hub", "name it with `hub: ID`")
    if data.draw and data.draw.validation + data.draw.test >= 1:
        total = data.draw.validation + data.draw.test
        yield Finding((*here, "draw"), f"the drawn shares add up to {total:g}; no row is left to train on")
    for split in ("validation", "test"):
        if getattr(data, split) is not None and data.draw and getattr(data.draw, split):
            yield Finding((*here, "draw", split), f"`{split}` is named and drawn", "remove one of the two")


def _has(recipe: Recipe, split: str) -> bool:
    data = recipe.task.data
    if data.embedded or data.hub is not None or data.train is None:  # without train, `_data_source` has told so
        return True
    return getattr(data, split) is not None or bool(data.draw and getattr(data.draw, split))


def _columns(recipe: Recipe) -> Iterator[Finding]:
    if recipe.task.type not in tasks.names():
        return
    task = tasks.find(recipe.task.type)
    columns = task.columns_for(recipe.task.prompt)
    own = [*columns, *(["references"] if "texts" in columns.values() else [])]
    for name in recipe.task.columns:
        if name not in own:
            yield Finding(("task", "columns", name), "", name_of="column")
    if recipe.task.labels is not None and "label" not in task.columns:
        yield Finding(("task", "labels"), f"a {recipe.task.type} task has no classes to name", "remove the block")
    if recipe.task.labels is not None and len(set(recipe.task.labels.values())) < len(recipe.task.labels):
        yield Finding(("task", "labels"), "two classes have the same word; the answers could not be told apart")
    if recipe.eval.turns == "all" and "messages" not in task.columns:
        yield Finding(("eval", "turns"), f"a {recipe.task.type} task has one answer in a row", "remove the line")
    if recipe.eval.stride is not None and task.answers != "read":
        yield Finding(("eval", "stride"), f"a {recipe.task.type} task is not scored in windows", "remove the line")
    if recipe.eval.few_shot and task.answers == "read":
        yield Finding(("eval", "few_shot"), f"a {recipe.task.type} task has no examples to show", "remove the line")
    if recipe.train.loss_on == "all" and task.answers == "read":
        yield Finding(("train", "loss_on"), f"every token of a {recipe.task.type} task is learned", "remove the line")


def _prompt(recipe: Recipe) -> Iterator[Finding]:
    if recipe.task.prompt is None or recipe.task.type not in tasks.names():
        return
    if wrong := tasks.check_prompt(tasks.find(recipe.task.type), recipe.task.prompt):
        yield Finding(("task", "prompt"), wrong)


def _length_of_training(recipe: Recipe) -> Iterator[Finding]:
    if recipe.train.epochs is not None and recipe.train.max_steps is not None:
        message = "`max_steps` and `epochs` both say when training ends"
        yield Finding(("train", "max_steps"), message, "remove one of the two")


def _validation(recipe: Recipe) -> Iterator[Finding]:
    train = recipe.train
    wants = [name for name in ("early_stopping_patience", "eval_steps") if getattr(train, name) is not None]
    if wants and not _has(recipe, "validation"):
        message = f"`{wants[0]}` needs validation rows, and there are none"
        help = "name `task.data.validation`, or draw them: `draw: {validation: 0.1}` under `task.data`"
        yield Finding(("train", wants[0]), message, help, reads=(("task", "data"),))
    if train.early_stopping_patience is not None and train.eval_steps is None:
        message = "`early_stopping_patience` counts validations, and `train.eval_steps` does not ask for any"
        yield Finding(("train", "early_stopping_patience"), message, "add `eval_steps: 20`", reads=(("train",),))
    if train.early_stopping_metric is None:
        return
    if train.early_stopping_patience is None:
        message = "`early_stopping_metric` has no effect without `train.early_stopping_patience`"
        help = "add `early_stopping_patience: 3`"
        yield Finding(("train", "early_stopping_metric"), message, help, reads=(("train",),))
    if train.early_stopping_metric not in ("loss", *metrics.names()):
        yield Finding(("train", "early_stopping_metric"), "", name_of="stopping metric")
    elif train.early_stopping_metric != "loss" and metrics.find(train.early_stopping_metric).higher_is_better is None:
        message = f"of `{train.early_stopping_metric}` neither direction is better, so none is the best"
        yield Finding(("train", "early_stopping_metric"), message, "use `loss` or another metric")
    elif train.early_stopping_metric != "loss":
        yield from _misfit(recipe, train.early_stopping_metric, ("train", "early_stopping_metric"))


def _evaluation(recipe: Recipe) -> Iterator[Finding]:
    if not _has(recipe, recipe.eval.split):
        split = recipe.eval.split
        help = f"name `task.data.{split}`, or draw them: `draw: {{{split}: 0.1}}` under `task.data`"
        yield Finding(("eval", "split"), f"there are no {split} rows to measure on", help, reads=(("task", "data"),))
    for index, name in enumerate(recipe.eval.metrics or ()):
        if name not in metrics.names():
            yield Finding(("eval", "metrics", index), "", name_of="metric")
        elif name in (recipe.eval.metrics or ())[:index]:
            yield Finding(("eval", "metrics", index), f"`{name}` stands twice", "remove one of the two")
        else:
            yield from _misfit(recipe, name, ("eval", "metrics", index))


def _misfit(recipe: Recipe, name: str, path: KeyPath) -> Iterator[Finding]:
    """A metric that needs what the task does not give."""
    if recipe.task.type not in tasks.names():
        return
    task, needs = tasks.find(recipe.task.type), metrics.find(name).needs
    wanted = {"choice": "a choice among labels", "text": "generated text"}.get(needs)
    if wanted and task.answers != {"choice": "choose", "text": "generate"}[needs]:
        message = f"`{name}` needs {wanted}, which a {task.title} task does not have"
        yield Finding(path, message, f"its metrics are {', '.join(task.metrics)}", reads=(("task", "type"),))


def _decoding(recipe: Recipe) -> Iterator[Finding]:
    decoding, here = recipe.eval.decoding, ("eval", "decoding")
    if decoding.do_sample:
        if decoding.num_beams > 1:
            yield Finding((*here, "num_beams"), "beam search does not sample", "set `do_sample: false`")
        return
    for name, default in (("temperature", 1.0), ("top_p", 1.0), ("top_k", 0)):
        if getattr(decoding, name) != default:
            message = f"`{name}` has no effect: without `do_sample` the best token is taken"
            yield Finding((*here, name), message, "add `do_sample: true`, or remove the line", reads=(here,))


_CHECKS: tuple[Callable[[Recipe], Iterator[Finding]], ...] = (
    _embedded_base,
    _quantization,
    _task_type,
    _data_source,
    _columns,
    _prompt,
    _length_of_training,
    _validation,
    _evaluation,
    _decoding,
)
