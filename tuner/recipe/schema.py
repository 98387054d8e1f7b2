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

SAFE = {"resume": "safe"}
SEMANTIC = {"resume": "semantic"}

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
Share = Annotated[float, Field(ge=0, le=1)]
Rows = Annotated[int, Field(ge=1, le=1_000_000_000)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Batch = Annotated[int, Field(ge=1, le=4096)]


class Block(BaseModel):
    """A block of a recipe. A block whose lines are all left out or commented out is the block of defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: Any) -> Any:
        return {} if data is None else data


class Quantization(Block):
    """How the base's weights are held."""

    bits: Literal[4, 8, 16, 32] = Field(4, description="bits per weight", json_schema_extra=SEMANTIC)
    quant_type: Literal["nf4", "fp4"] = Field("nf4", description="the 4-bit code", json_schema_extra=SEMANTIC)
    double_quant: bool = Field(True, description="quantize the 4-bit scales as well", json_schema_extra=SEMANTIC)
    compute_dtype: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="what is computed in; auto: what the device does best", json_schema_extra=SEMANTIC
    )


class Base(Block):
    """The model that is adapted; its own weights never change."""

    model: Text = Field(description="hub id, folder, or `embedded`", json_schema_extra=SEMANTIC)
    revision: Text | None = Field(None, description="commit, tag or branch on the hub", json_schema_extra=SEMANTIC)
    quantization: Quantization = Field(default_factory=Quantization, description="how the weights are held")
    attention: Literal["eager", "sdpa", "flash_attention_2"] = Field(
        "sdpa", description="attention kernel", json_schema_extra=SEMANTIC
    )


class Adapter(Block):
    """The adapter method and its options, which stand beside `method` in a recipe."""

    method: str = Field(description="a method that `inlay ls methods` names", json_schema_extra=SEMANTIC)
    options: SerializeAsAny[adapters.Options] = Field(description="the method's own options")

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("method"), str):
            return data
        given = {key: value for key, value in data.items() if key != "method"}
        if isinstance(given.get("options"), adapters.Options):
            return data
        try:
            method = adapters.find(data["method"])
        except LookupError:
            problem = PydanticCustomError("unknown_method", "unknown adapter method")
            details = InitErrorDetails(type=problem, loc=("method",), input=data["method"])
            raise ValidationError.from_exception_data(cls.__name__, [details]) from None
        # Through JSON, so that strictness takes a YAML list for a tuple but never text for a number.
        options = method.Options.model_validate_json(json.dumps(given), strict=True)
        return {"method": data["method"], "options": options}

    @model_serializer
    def _options_beside_method(self) -> dict[str, Any]:
        return {"method": self.method, **self.options.model_dump(mode="json")}


class Draw(Block):
    """Shares of the training rows, drawn by a stable hash of the row."""

    validation: float = Field(0.0, ge=0, le=0.9, description="share drawn for validation", json_schema_extra=SEMANTIC)
    test: float = Field(0.0, ge=0, le=0.9, description="share drawn for the test", json_schema_extra=SEMANTIC)


class MaxRows(Block):
    """At most so many rows of each split."""

    train: Rows | None = Field(None, description="at most so many training rows", json_schema_extra=SEMANTIC)
    validation: Rows | None = Field(None, description="at most so many validation rows", json_schema_extra=SEMANTIC)
    test: Rows | None = Field(None, description="at most so many test rows", json_schema_extra=SEMANTIC)


class Data(Block):
    """Where the rows come from: the embedded rows of the task, files, or a dataset on the hub.

    `data: embedded` in a recipe is short for `data: {embedded: true}`.
    """

    embedded: bool = Field(False, description="the rows that inlay brings for the task", json_schema_extra=SEMANTIC)
    train: Text | None = Field(
        None, description="training file (.jsonl, .csv, .parquet), or split on the hub", json_schema_extra=SEMANTIC
    )
    validation: Text | None = Field(
        None, description="validation file, or split on the hub", json_schema_extra=SEMANTIC
    )
    test: Text | None = Field(None, description="test file, or split on the hub", json_schema_extra=SAFE)
    hub: Text | None = Field(None, description="dataset id on the hub", json_schema_extra=SEMANTIC)
    config: Text | None = Field(None, description="configuration of the hub dataset", json_schema_extra=SEMANTIC)
    revision: Text | None = Field(None, description="commit of the hub dataset", json_schema_extra=SEMANTIC)
    draw: Draw | None = Field(None, description="shares of the training rows for splits that are not named")
    max_rows: MaxRows = Field(default_factory=MaxRows, description="at most so many rows of each split")

    @model_validator(mode="before")
    @classmethod
    def _word_is_short(cls, data: Any) -> Any:
        return {"embedded": True} if data == "embedded" else data


class Task(Block):
    """What is learned and measured."""

    type: str = Field(description="a task that `inlay ls tasks` names", json_schema_extra=SEMANTIC)
    data: Data = Field(description="`embedded`, files, or a hub dataset")
    columns: dict[str, Text] = Field(
        default_factory=dict, description="the task's column: the column in your data", json_schema_extra=SEMANTIC
    )
    prompt: Text | None = Field(
        None, description="instruction, with columns in braces: `Summarize: {document}`", json_schema_extra=SEMANTIC
    )
    labels: dict[str, Text] | None = Field(
        None, description="value in the data: the word for the class", json_schema_extra=SEMANTIC
    )
    truncate: bool = Field(
        False, description="cut documents that are too long; never the answer", json_schema_extra=SEMANTIC
    )
    max_left_out: Share = Field(
        0.05, description="share of rows that may be too long before the run stops", json_schema_extra=SAFE
    )


class Train(Block):
    """How the adapter is trained."""

    epochs: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="passes over the training rows; 1 without max_steps",
        json_schema_extra=SEMANTIC,
    )
    max_steps: Steps | None = Field(None, description="optimizer steps, instead of epochs", json_schema_extra=SEMANTIC)
    micro_batch_size: Batch = Field(8, description="rows in memory at once", json_schema_extra=SEMANTIC)
    gradient_accumulation_steps: Batch = Field(1, description="micro-batches in a step", json_schema_extra=SEMANTIC)
    learning_rate: float | None = Field(
        None, gt=0, le=1, description="peak learning rate; unset: the method's own", json_schema_extra=SEMANTIC
    )
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "cosine", description="shape of the learning rate over the steps", json_schema_extra=SEMANTIC
    )
    warmup_ratio: Share = Field(0.03, description="share of the steps that warm up", json_schema_extra=SEMANTIC)
    weight_decay: Share = Field(0.0, description="decoupled weight decay", json_schema_extra=SEMANTIC)
    max_grad_norm: float = Field(
        1.0, gt=0, le=1000, description="gradients are clipped to this norm", json_schema_extra=SEMANTIC
    )
    max_length: int | None = Field(
        None, ge=8, le=1_048_576, description="tokens in a row; unset: the base's, up to 1024",
        json_schema_extra=SEMANTIC,
    )  # fmt: skip
    gradient_checkpointing: bool = Field(
        False, description="recompute activations: less memory, more time", json_schema_extra=SAFE
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, le=1000, description="stop after so many validations without a gain", json_schema_extra=SEMANTIC
    )
    early_stopping_metric: str | None = Field(
        None, description="what must gain: `loss` (unset) or a metric", json_schema_extra=SEMANTIC
    )
    eval_steps: Steps | None = Field(None, description="validate every so many steps", json_schema_extra=SEMANTIC)
    neftune_noise_alpha: float | None = Field(
        None, gt=0, le=100, description="noise on the embeddings (NEFTune)", json_schema_extra=SEMANTIC
    )
    loss_on: Literal["answer", "all"] = Field(
        "answer", description="tokens that are learned from", json_schema_extra=SEMANTIC
    )
    log_steps: int = Field(10, ge=1, le=1_000_000, description="log every so many steps", json_schema_extra=SAFE)
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        default_factory=list, description="trackers, none by default", json_schema_extra=SAFE
    )


class DecodingOptions(Block):
    """How text is generated when the model is measured."""

    max_new_tokens: int = Field(64, ge=1, le=32_768, description="longest reply in tokens", json_schema_extra=SAFE)
    do_sample: bool = Field(False, description="draw tokens instead of taking the best", json_schema_extra=SAFE)
    num_beams: int = Field(1, ge=1, le=64, description="beams; 1 is greedy", json_schema_extra=SAFE)
    temperature: float = Field(1.0, gt=0, le=10, description="with do_sample", json_schema_extra=SAFE)
    top_p: float = Field(1.0, gt=0, le=1, description="with do_sample", json_schema_extra=SAFE)
    top_k: int = Field(0, ge=0, le=1_000_000, description="with do_sample; 0 is off", json_schema_extra=SAFE)
    repetition_penalty: float = Field(1.0, ge=0.1, le=10, description="1 is off", json_schema_extra=SAFE)


class Eval(Block):
    """How the result is measured, beside the untouched base."""

    split: Literal["validation", "test"] = Field("test", description="rows to measure on", json_schema_extra=SAFE)
    metrics: list[str] | None = Field(
        None, min_length=1, description="metrics that `inlay ls metrics` names; unset: the task's",
        json_schema_extra=SAFE,
    )  # fmt: skip
    decoding: DecodingOptions = Field(default_factory=DecodingOptions, description="how text is generated")
    batch_size: Batch = Field(16, description="rows at once", json_schema_extra=SAFE)
    turns: Literal["last", "all"] = Field(
        "last", description="dialogue: score the last reply or every reply", json_schema_extra=SAFE
    )
    language: str = Field(
        "auto", pattern=r"^[a-z]{2,4}$", description="language of the answers: `en`, `zh`, `ja`, ..., or `auto`",
        json_schema_extra=SAFE,
    )  # fmt: skip


class Recipe(Block):
    """What to train on which base with which data, and how to measure it. Paths in it are absolute."""

    name: Name = Field(description="names the run", json_schema_extra=SAFE)
    seed: int = Field(0, ge=0, le=4_294_967_295, description="of everything random", json_schema_extra=SEMANTIC)
    base: Base = Field(description="the model that is adapted")
    adapter: Adapter = Field(description="how it is adapted")
    task: Task = Field(description="what is learned")
    train: Train = Field(default_factory=Train, description="how it is trained")
    eval: Eval = Field(default_factory=Eval, description="how it is measured")

    _written: dict[str, str] = PrivateAttr(default_factory=dict)

    def written(self, path: str) -> str | None:
        """What the user wrote for the model or file at the dotted `path`, e.g. `base.model`; None where nothing."""
        if path in self._written:
            return self._written[path]
        value: Any = self
        for part in path.split("."):
            value = getattr(value, part)
        return value
