"""Everything about a run that is known before a weight is loaded, and every refusal that can be made by then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from inlay import adapters
from inlay.adapters import Adapted, Facts, Method, Training
from inlay.eval import Decoding, Example
from inlay.eval import metrics as metric_folder
from inlay.eval.language import detect_language
from inlay.eval.metrics import Metric
from inlay.tuner import adapter_folder
from inlay.tuner import base as base_models
from inlay.tuner.adapter_folder import continued, refuse_other_base
from inlay.tuner.base import Base
from inlay.tuner.data import tasks
from inlay.tuner.data.few_shot import behind
from inlay.tuner.data.prepared import Limits, Prepared, example_length, prepare
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.model_files import ModelFiles, locate
from inlay.tuner.plain_weights import with_plain_weights
from inlay.tuner.problems import MachineError, Problem, RequestError, explained
from inlay.tuner.quantization import Quantization, settle
from inlay.tuner.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST_BY_DEFAULT = 1024


@dataclass(frozen=True)
class Setting:
    """A recipe with its base's files, its data and its method, checked against each other."""

    recipe: Recipe
    files: ModelFiles
    tokenizer: PreTrainedTokenizerBase
    facts: Facts
    method: Method
    renderer: Renderer
    data: Prepared
    metrics: tuple[Metric, ...]
    language: str
    decoding: Decoding
    start_from: Path | None

    @property
    def quantization(self) -> Quantization:
        """How the base's weights are held."""
        return Quantization(**self.recipe.base.quantization.model_dump())

    @property
    def task(self) -> tasks.Task:
        """What a row asks for."""
        return _task(self.recipe)

    @property
    def trainable(self) -> int:
        """The number of weights that will train."""
        return (self.method.continued if self.start_from else self.method.trainable)(self.facts)

    @property
    def learning_rate(self) -> float:
        """The recipe's, or the method's own."""
        return self.recipe.train.learning_rate or self.method.learning_rate

    @property
    def steps(self) -> int:
        """Optimizer steps of the training, unless it stops early."""
        steps = _steps(self.recipe, len(self.data.training))
        assert steps, "the training rows were left out, and the number of steps depends on them"
        return steps

    @property
    def pad_id(self) -> int:
        """What batches are filled up with; never read, never a label."""
        return self.renderer.pad_id

    def adapted_as(self, recipe: Recipe) -> Setting:
        """This setting with the adapter, the seed and the training options of `recipe`, which shares all else with this
        one's: the same rendered rows, the same metrics, the same decoding.

        Raises:
            RequestError: the method cannot be used on this base or with this training.
        """
        recipe, start_from = continued(settled(recipe, self.files))
        if start_from:
            refuse_other_base(start_from, self.files)
        method = adapters.find(recipe.adapter.method)(recipe.adapter.options)
        _refuse_misfit(recipe, method, self.facts, _steps(recipe, len(self.data.training)))
        data = self.data if recipe.eval.few_shot else replace(self.data, shown=())
        return replace(self, recipe=recipe, method=method, data=data, start_from=start_from)

    def few_shot(self) -> tuple[Example, ...]:
        """The examples to measure on, each behind the training examples that are shown; none where none are asked."""
        measured = self.data.examples[self.recipe.eval.split]
        return tuple(behind(self.renderer, self.data.shown, e) for e in measured) if self.data.shown else ()

    def open_adapter(self, base: Base, seed: int) -> Adapted:
        """A fresh adapter on the base, or the one that the recipe starts from.

        Raises:
            RequestError: that one does not fit this base.
        """
        if self.start_from is None:
            return self.method.attach(base.model, self.facts, seed=seed, steps=self.steps)
        with explained(f"the adapter in `{self.start_from}` does not fit", ValueError):
            return self.method.load(self.start_from, base.model, self.facts)

    @property
    def start_sha256(self) -> str:
        """Of the weights of the adapter that the recipe starts from; empty where it starts from none."""
        return adapter_folder.weights_sha256(self.start_from) if self.start_from else ""

    def start_id(self, base: Base) -> int | None:
        """The token that a sequence-to-sequence decoder starts from; None for a causal base."""
        return base.model.config.decoder_start_token_id if self.facts.kind == "seq2seq" else None

    def open_base(self) -> Base:
        """Loads the weights; the method's targets as plain layers where it needs them so."""
        floats = self.method.targets(self.facts) if self.method.needs_float_weights else ()
        base = base_models.open_base(
            self.files,
            self.quantization,
            self.facts,
            self.tokenizer,
            attention=self.recipe.base.attention,
            float_targets=floats,
        )
        return with_plain_weights(base)


def settled(recipe: Recipe, files: ModelFiles) -> Recipe:
    """The recipe with the base held as its files hold it, where they hold 4-bit weights.

    Raises:
        RequestError: it asks for something else.
    """
    if files.stored is None:
        return recipe
    block = recipe.base.quantization
    held = settle(Quantization(**block.model_dump()), block.model_fields_set, files.stored, files.name)
    base = recipe.base.model_copy(update={"quantization": block.model_copy(update=asdict(held))})
    return recipe.model_copy(update={"base": base})


def survey(
    recipe: Recipe, splits: Sequence[str] | None = None, *, reserve: int = 0, train: bool = True
) -> Setting:
    """Reads configuration, tokenizer and data, and checks them against the recipe.

    Args:
        splits: the splits to prepare beside the training rows; by default those that the recipe's run needs.
        reserve: positions of the context to leave free, where that is more than the method's own: adapters that are to
            be compared read the same tokens.
        train: whether anything will train, or be shown training rows. Without, these are left out, and so is what
            can be said of them alone: their length, what they share with the others, the number of steps.

    Raises:
        RequestError, MachineError: the base, the data or the method cannot be used as the recipe asks.
    """
    files = locate(recipe.base.model, recipe.base.revision)
    recipe, start_from = continued(settled(recipe, files))
    if start_from:
        refuse_other_base(start_from, files)
    config = base_models.read_config(files)
    facts = base_models.read_facts(config, recipe.base.quantization.bits)
    method = adapters.find(recipe.adapter.method)(recipe.adapter.options)
    _refuse_misfit(recipe, method, facts, recipe.train.max_steps, reserve)
    tokenizer = base_models.read_tokenizer(files)
    task = _task(recipe)
    if facts.kind == "seq2seq" and task.answers == "read":
        message = f"{task.title} needs a base that continues a text; this {facts.model_type} base answers one"
        raise RequestError(Problem(message, path="task.type", help="use a causal base, or a task with an answer"))
    wanted = tuple(splits) if splits is not None else _splits(recipe)
    decoding = Decoding(**recipe.eval.decoding.model_dump(), seed=recipe.seed)
    limits = _limits(recipe, facts, max(method.prepended, reserve), decoding, answers=task.answers)
    renderer = _renderer(recipe, tokenizer, facts, limits)
    data = prepare(recipe, task, renderer, limits, wanted, train=train)
    if train:
        _refuse_misfit(recipe, method, facts, _steps(recipe, len(data.training)), reserve)
    _refuse_long_examples(recipe, renderer, data, limits)
    language = recipe.eval.language
    if language == "auto":
        language = detect_language([example.answer for example in data.examples[recipe.eval.split]])
    names = recipe.eval.metrics or task.metrics
    return Setting(
        recipe=recipe,
        files=files,
        tokenizer=tokenizer,
        facts=facts,
        method=method,
        renderer=renderer,
        data=data,
        metrics=tuple(metric_folder.find(name)(language) for name in names),
        language=language,
        decoding=decoding,
        start_from=start_from,
    )


def _task(recipe: Recipe) -> tasks.Task:
    asked = recipe.task
    return tasks.find(asked.type)(prompt=asked.prompt, labels=asked.labels, all_turns=recipe.eval.turns == "all")


def _splits(recipe: Recipe) -> tuple[str, ...]:
    validated = ("validation",) if recipe.train.eval_steps is not None else ()
    return tuple(dict.fromkeys((*validated, recipe.eval.split)))


def _steps(recipe: Recipe, rows: int) -> int | None:
    """Optimizer steps, as Trainer counts them: the last one of an epoch may be of fewer rows. None where they depend on
    training rows, and there are none."""
    if recipe.train.max_steps is not None or not rows:
        return recipe.train.max_steps
    batches = math.ceil(rows / recipe.train.micro_batch_size)
    each = max(1, math.ceil(batches / recipe.train.gradient_accumulation_steps))
    return math.ceil((recipe.train.epochs or 1) * each)


def _refuse_misfit(recipe: Recipe, method: Method, facts: Facts, steps: int | None, reserve: int = 0) -> None:
    training = Training(
        gradient_checkpointing=recipe.train.gradient_checkpointing,
        steps=steps,
        early_stopping=recipe.train.early_stopping_patience is not None,
    )
    reason = method.refusal(facts, training)
    if reason:
        raise RequestError(Problem(reason, path="adapter"))
    if facts.kind == "seq2seq" and recipe.train.loss_on == "all":
        message = "train.loss_on: all has no meaning here: an encoder's tokens are read, not predicted"
        raise RequestError(Problem(message, path="train.loss_on", help="remove the line"))
    for tracker in recipe.train.report_to:
        if find_spec(tracker) is None:
            help = f'pip install "inlay[{tracker}]"'
            raise MachineError(f"train.report_to names {tracker}, which is not installed", help=help)
    context, asked = facts.context, recipe.train.max_length
    kept = max(method.prepended, reserve)
    if context is not None and asked is not None and asked > context - kept:
        taken = f", of which {'the adapter' if kept == method.prepended else 'a row'} takes {kept}" if kept else ""
        raise RequestError(
            Problem(
                f"train.max_length is {asked}, but this base has a context of {context} tokens{taken}",
                path="train.max_length",
                help=f"set it to {context - kept} or less",
            )
        )


def _refuse_long_examples(recipe: Recipe, renderer: Renderer, data: Prepared, limits: Limits) -> None:
    """Shown examples that leave no room for the longest row."""
    if not data.shown or limits.context is None:
        return
    measured = data.examples[recipe.eval.split]
    longest = max(example_length(renderer, behind(renderer, data.shown, e), limits.new_tokens) for e in measured)
    if longest > limits.context:
        alone = max(example_length(renderer, example, limits.new_tokens) for example in measured)
        raise RequestError(
            Problem(
                f"{recipe.eval.few_shot} examples in context make the longest row {longest} tokens; without them it "
                f"has {alone}, and {limits.context} fit",
                path="eval.few_shot",
                help="show fewer, or use a base with a longer context",
            )
        )


def _limits(recipe: Recipe, facts: Facts, reserve: int, decoding: Decoding, *, answers: str) -> Limits:
    context = None if facts.context is None else facts.context - reserve
    longest = min(context or LONGEST_BY_DEFAULT, LONGEST_BY_DEFAULT)
    return Limits(
        training=recipe.train.max_length or longest,
        context=None if answers == "read" else context,  # a text of any length is read in windows
        new_tokens=decoding.max_new_tokens if answers == "generate" else 0,
    )


def _renderer(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, facts: Facts, limits: Limits) -> Renderer:
    """Texts are scored in windows as long as the training rows."""
    window = limits.training
    stride = recipe.eval.stride or max(1, window // 2)
    if stride >= window:
        message = f"a window of {window} tokens cannot score {stride} new ones after at least one that it reads"
        raise RequestError(Problem(message, path="eval.stride", help=f"set it to {window - 1} or less"))
    return Renderer(
        tokenizer, facts.kind, recipe.train.loss_on, row_length=limits.training, window=window, stride=stride
    )
