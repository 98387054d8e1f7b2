"""The recipe as frozen models: what may be written, in which range, and what each field means.

Every field carries a one-line description, which the JSON Schema and the starter recipe print, and a mark for resuming
an interrupted run: `safe` (an edit cannot change what is learned) or `semantic` (it can, so a resume refuses the edit).
Rules that need more than one field are in `checks`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from inlay import adapters

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
Share = Annotated[float, Field(ge=0, le=1)]
Rows = Annotated[int, Field(ge=1, le=1_000_000_000)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Batch = Annotated[int, Field(ge=1, le=4096)]


def _semantic(default: Any, description: str, example: object = None, **limits: Any) -> Any:
    """A field whose edit changes what is learned. `example`: a value to show where the default is none."""
    return _field(default, description, example, "semantic", limits)


def _safe(default: Any, description: str, example: object = None, **limits: Any) -> Any:
    """A field that may be edited before a resume."""
    return _field(default, description, example, "safe", limits)


def _field(default: Any, description: str, example: object, resume: str, limits: Mapping[str, Any]) -> Any:
    examples = None if example is None else [example]
    extra: dict[str, Any] = {"resume": resume}
    return Field(default, description=description, examples=examples, json_schema_extra=extra, **limits)


class Block(BaseModel):
    """A block of a recipe. A block whose lines are all left out or commented out is the block of defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: Any) -> Any:
        return {} if data is None else data


class Quantization(Block):
    """How the base's weights are held."""

    bits: Literal[4, 8, 16, 32] = _semantic(4, "bits per weight")
    quant_type: Literal["nf4", "fp4"] = _semantic("nf4", "the 4-bit code")
    double_quant: bool = _semantic(True, "quantize the 4-bit scales as well")
    compute_dtype: Literal["auto", "fp32", "bf16", "fp16"] = _semantic("auto", "arithmetic; auto: the device's best")


class Base(Block):
    """The model that is adapted; its own weights never change."""

    model: Text = _semantic(..., "hub id, folder, or `embedded`")
    revision: Text | None = _semantic(None, "commit, tag or branch on the hub", example="main")
    quantization: Quantization = Field(default_factory=Quantization, description="how the weights are held")
    attention: Literal["eager", "sdpa", "flash_attention_2"] = _semantic("sdpa", "attention kernel")


class Adapter(Block):
    """The adapter method and its options, which stand beside `method` in a recipe."""

    method: str = _semantic(..., "a method that `inlay ls methods` names")
    start_from: Text | None = _semantic(None, "a run, or an adapter made elsewhere with PEFT, to train on", "runs/NAME")
    options: SerializeAsAny[adapters.Options] = Field(description="the method's own options")

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        own = {key: data[key] for key in ("method", "start_from") if key in data}
        if not isinstance(data.get("method"), str):  # nobody knows the options of no method
            return {**own, "options": adapters.Options()}
        given = {key: value for key, value in data.items() if key not in own}
        if isinstance(given.get("options"), adapters.Options):
            return data
        try:
            method = adapters.find(data["method"])
        except LookupError:
            problem = PydanticCustomError("unknown_method", "unknown adapter method")
            details = InitErrorDetails(type=problem, loc=("method",), input=data["method"])
            raise ValidationError.from_exception_data(cls.__name__, [details]) from None
        # Through JSON, so that strictness takes a list for a tuple but never text for a number.
        return {**own, "options": method.Options.model_validate_json(json.dumps(given), strict=True)}

    @model_serializer
    def _options_beside_method(self) -> dict[str, Any]:
        return {"method": self.method, "start_from": self.start_from, **self.options.model_dump(mode="json")}


class Draw(Block):
    """Shares of the training rows, drawn by a stable hash of the row."""

    validation: float = _semantic(0.0, "share drawn for validation", ge=0, le=0.9)
    test: float = _semantic(0.0, "share drawn for the test", ge=0, le=0.9)


class MaxRows(Block):
    """At most so many rows of each split."""

    train: Rows | None = _semantic(None, "at most so many training rows", example=2000)
    validation: Rows | None = _semantic(None, "at most so many validation rows", example=200)
    test: Rows | None = _safe(None, "at most so many test rows", example=200)


class Data(Block):
    """Where the rows come from: the embedded rows of the task, files, or a dataset on the hub.

    `data: embedded` in a recipe is short for `data: {embedded: true}`.
    """

    embedded: bool = _semantic(False, "the rows that inlay brings for the task")
    train: Text | None = _semantic(None, "training file (.jsonl, .csv, .parquet), or split on the hub", "train.jsonl")
    validation: Text | None = _semantic(None, "validation file, or split on the hub", "validation.jsonl")
    test: Text | None = _safe(None, "test file, or split on the hub", "test.jsonl")
    hub: Text | None = _semantic(None, "dataset id on the hub", "owner/dataset")
    config: Text | None = _semantic(None, "configuration of the hub dataset", "default")
    revision: Text | None = _semantic(None, "commit of the hub dataset", "main")
    draw: Draw | None = Field(None, description="shares of the training rows for splits that are not named")
    max_rows: MaxRows = Field(default_factory=MaxRows, description="at most so many rows of each split")

    @model_validator(mode="before")
    @classmethod
    def _word_is_short(cls, data: Any) -> Any:
        return {"embedded": True} if data == "embedded" else data


class Task(Block):
    """What is learned and measured."""

    type: str = _semantic(..., "a task that `inlay ls tasks` names")
    data: Data = Field(description="`embedded`, or a block that names files or a hub dataset")
    columns: dict[str, Text] = _semantic({}, "the task's column: the column in your data")
    prompt: Text | None = _semantic(None, "instruction, with the row's columns in braces")
    labels: dict[str, Text] | None = _semantic(
        None, "value in the data: the word for the class", {"0": "no", "1": "yes"}
    )
    overlap: Literal["drop_train", "keep", "stop"] = _semantic(
        "drop_train", "training rows that stand in the rows to measure on too"
    )
    truncate: bool = _semantic(False, "cut documents that are too long; never the answer")
    max_left_out: Share = _safe(0.05, "share of rows that may be left out as too long before the run stops")


class Train(Block):
    """How the adapter is trained."""

    epochs: float | None = _semantic(None, "passes over the rows; 1 without max_steps", 3, gt=0, le=1000)
    max_steps: Steps | None = _semantic(None, "optimizer steps, instead of epochs", 500)
    micro_batch_size: Batch = _semantic(8, "rows in memory at once")
    gradient_accumulation_steps: Batch = _semantic(1, "micro-batches in a step")
    learning_rate: float | None = _semantic(None, "peak; unset: the method's own", 0.0002, gt=0, le=1)
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = _semantic(
        "cosine", "how the learning rate falls over the steps"
    )
    warmup_ratio: Share = _semantic(0.03, "share of the steps that warm up")
    weight_decay: Share = _semantic(0.0, "decoupled weight decay")
    max_grad_norm: float = _semantic(1.0, "gradients are clipped to this norm", gt=0, le=1000)
    max_length: int | None = _semantic(None, "tokens in a row; unset: the base's, up to 1024", 512, ge=8, le=1_048_576)
    gradient_checkpointing: bool = _safe(False, "recompute activations: less memory, more time")
    early_stopping_patience: int | None = _semantic(
        None, "stop after so many validations without gain", 3, ge=1, le=1000
    )
    early_stopping_metric: str | None = _semantic(None, "what must gain: `loss` (unset) or a metric", "loss")
    eval_steps: Steps | None = _semantic(None, "validate every so many steps", 20)
    neftune_noise_alpha: float | None = _semantic(None, "noise on the embeddings (NEFTune)", 5, gt=0, le=100)
    loss_on: Literal["answer", "all"] = _semantic("answer", "tokens that are learned from")
    log_steps: int = _safe(10, "log every so many steps", ge=1, le=1_000_000)
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = _safe([], "trackers that follow the run")


class DecodingOptions(Block):
    """How text is generated when the model is measured."""

    max_new_tokens: int = _safe(64, "longest reply in tokens", ge=1, le=32_768)
    do_sample: bool = _safe(False, "draw tokens instead of taking the best")
    num_beams: int = _safe(1, "beams; 1 is greedy", ge=1, le=64)
    temperature: float = _safe(1.0, "with do_sample", gt=0, le=10)
    top_p: float = _safe(1.0, "with do_sample", gt=0, le=1)
    top_k: int = _safe(0, "with do_sample; 0 is off", ge=0, le=1_000_000)
    repetition_penalty: float = _safe(1.0, "1 is off", ge=0.1, le=10)


class Eval(Block):
    """How the result is measured, beside the untouched base."""

    split: Literal["validation", "test"] = _safe("test", "rows to measure on")
    metrics: list[str] | None = _safe(
        None, "`inlay ls metrics` names them; unset: the task's", ["perplexity"], min_length=1
    )
    decoding: DecodingOptions = Field(default_factory=DecodingOptions, description="how text is generated")
    few_shot: int = _safe(0, "training examples in context, for one more row of the untouched base", ge=0, le=64)
    batch_size: Batch = _safe(16, "rows at once")
    turns: Literal["last", "all"] = _safe("last", "score the last reply or every reply")
    stride: int | None = _safe(
        None, "tokens that a window scores of a long text; unset: half its length", 256, ge=1, le=1_048_576
    )
    language: str = _safe("auto", "language of the answers (`en`, `zh`, ...)", pattern=r"^[a-z]{2,4}$")


class Recipe(Block):
    """What to train on which base with which data, and how to measure it. Paths in it are absolute."""

    name: Name = _safe(..., "names the run")
    seed: int = _semantic(0, "of everything random", ge=0, le=4_294_967_295)
    base: Base = Field(description="the model that is adapted")
    adapter: Adapter = Field(description="how it is adapted")
    task: Task = Field(description="what is learned")
    train: Train = Field(default_factory=Train, description="how it is trained")
    eval: Eval = Field(default_factory=Eval, description="how it is measured")

    _written: dict[str, str] = PrivateAttr(default_factory=dict)

    def on_base(self, model: str) -> Recipe:
        """This recipe with another base: a hub id, or a folder."""
        other = self.model_copy(update={"base": self.base.model_copy(update={"model": model, "revision": None})})
        other._written = {**self._written, "base.model": model}
        return other

    def on_base_of(self, recipe: Recipe) -> Recipe:
        """This recipe on the base of another, held as there."""
        other = self.model_copy(update={"base": recipe.base})
        other._written = {**self._written, "base.model": recipe.base.model}
        return other

    def written(self, path: str) -> Any:
        """What the user wrote at the dotted `path` of a model or file, e.g. `base.model`; None where nothing."""
        if path in self._written:
            return self._written[path]
        value: Any = self
        for part in path.split("."):
            value = getattr(value, part)
        return value
