"""What a run leaves on disk: the schemas of `run.json`, `predictions.jsonl` and `train.jsonl`.

Everything here is plain data: a page, a comparison or another tool reads these files and needs no model.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputFile(_Part):
    """A file that the run read, by name (never by absolute path), content hash and size in bytes."""

    name: str
    sha256: str
    bytes: int


class BaseRecord(_Part):
    """The base model: `sha256` covers config, tokenizer and weights; `bytes` is its size in memory as loaded,
    `plain_bytes` of the dequantized weights that are kept beside it for speed."""

    model: str
    revision: str | None
    sha256: str
    model_type: str
    quantization: str
    compute_dtype: str
    parameters: int
    bytes: int
    plain_bytes: int = 0
    prompt_format: str


class AdapterRecord(_Part):
    """The adapter; `title` is the method's usual name, `share` trainable / all parameters, `bytes` its size on disk;
    `extra_base_bytes`: memory of target layers that it needs as plain layers, beyond what they take quantized;
    `sha256`: of its weights file, `start_sha256`: of the weights that its training began with, where those were another
    adapter's."""

    method: str
    title: str = ""
    options: dict[str, object]
    trainable_parameters: int
    share: float
    bytes: int
    extra_base_bytes: int = 0
    sha256: str = ""
    start_sha256: str = ""

    @property
    def name(self) -> str:
        """What to call it."""
        return self.title or self.method


class OverlapRecord(_Part):
    """Training rows whose prompt stands in another split too: with the same answer, and with another one."""

    prompt_and_answer: int
    prompt_only: int


class DataRecord(_Part):
    """The data of the run. `rows`, `left_out` and `tokens` are per split; `rows_sha256` covers the ids of used rows.
    `revision` is the commit of a hub dataset. `first_row` is the first training row as the model sees it: pieces of
    text, and whether they are trained on. `overlap` is per measured split, on normalized text; `dropped` says how many
    training rows were left out for it. `duplicates`: training rows that repeat another.
    """

    inputs: list[InputFile]
    revision: str | None = None
    sha256: str
    rows_sha256: str
    rows: dict[str, int]
    left_out: dict[str, int]
    documents_cut: dict[str, int]
    tokens: dict[str, int]
    trained_tokens: int
    first_row: list[tuple[str, bool]]
    overlap: dict[str, OverlapRecord] = {}
    dropped: int = 0
    duplicates: int = 0


class ForecastRecord(_Part):
    """What was predicted before a weight was loaded: `peak_bytes` in training as a range, and the parts it is made of;
    `benchmark_bytes`: what the logits of the benchmark's largest batch need at least; `disk_bytes`: the run's folder,
    as a range."""

    trainable_parameters: int
    peak_bytes: tuple[int, int]
    benchmark_bytes: int
    parts: dict[str, int]
    disk_bytes: tuple[int, int]


class TrainRecord(_Part):
    """What training did. `seconds` are step-only; `peak_bytes` is resident memory, or device memory on CUDA."""

    steps: int
    rows_seen: int
    tokens: int
    trained_tokens: int
    seconds: float
    tokens_per_second: float
    peak_bytes: int
    learning_rate: float
    first_loss: float | None
    last_loss: float | None
    best_step: int | None
    stopped_early: bool


class ScoreRecord(_Part):
    """`inlay.eval.Score` on disk."""

    value: float
    ci95: tuple[float, float] | None
    unit: str
    higher_is_better: bool | None
    signature: str
    n: int
    note: str


class ChangeRecord(_Part):
    """`inlay.eval.Change` on disk."""

    value: float
    ci95: tuple[float, float] | None
    unit: str
    verdict: Literal["better", "worse", "unclear", "same"]


class NoiseRecord(_Part):
    """How much batching alone moves the results: the same model on `rows` examples, one at a time against batched."""

    rows: int
    identical_texts: int
    nll_relative: float
    dtype: str


class Metrics(_Part):
    """Scores by name: the trained model, the untouched base, and the paired change between them; and the same for the
    untouched base with training examples in context, where that was asked for."""

    tuned: dict[str, ScoreRecord]
    base: dict[str, ScoreRecord]
    change: dict[str, ChangeRecord]
    few_shot: dict[str, ScoreRecord] = {}
    few_shot_change: dict[str, ChangeRecord] = {}


class EvalRecord(_Part):
    """How the benchmark was made. `confusion` counts [gold][chosen] for the tuned model, in the order of `labels`.

    `few_shot`: ids of the training rows in the context of the base's further row. `per_token_accuracy`, in %: had each
    label's log-likelihood been divided by its number of tokens. `latency_seconds`: one generated token at batch size 1,
    and `merged_latency_seconds`: the same of the base with plain layers everywhere, as a merged adapter leaves it.
    """

    split: str
    rows: int
    tokens_scored: int
    decoding: str
    batch_size: int
    language: str
    seconds: float
    peak_bytes: int
    few_shot: list[str] = []
    noise: NoiseRecord | None
    latency_seconds: float | None = None
    merged_latency_seconds: float | None = None
    labels: list[str]
    label_tokens: list[int]
    per_token_accuracy: float | None = None
    confusion: list[list[int]]


class OutsideRecord(_Part):
    """Text outside the task, by hash: bytes and summed negative log-likelihood of each text, adapted and untouched."""

    sha256: str
    bytes: list[int]
    nll_nats: list[float]
    base_nll_nats: list[float]


class Environment(_Part):
    """Where it ran. `versions` by package; `git`: the commit of the repository that the command was given in."""

    python: str
    versions: dict[str, str]
    platform: str
    device: str
    threads: int
    git: str | None


class RunRecord(_Part):
    """`run.json`."""

    schema_version: int = SCHEMA_VERSION
    id: str
    name: str
    task: str
    status: Literal["running", "complete", "interrupted", "failed"]
    reason: str
    created: str
    seconds: float
    seed: int
    recipe_hash: str
    command: str
    base: BaseRecord | None = None
    adapter: AdapterRecord | None = None
    data: DataRecord | None = None
    forecast: ForecastRecord | None = None
    train: TrainRecord | None = None
    eval: EvalRecord | None = None
    metrics: Metrics | None = None
    outside: OutsideRecord | None = None
    environment: Environment | None = None


class Prediction(_Part):
    """One line of `predictions.jsonl`: all that a metric reads of the tuned model, of the base, and of the base with
    examples in context where that was measured.

    `nll_nats` are sums over the `tokens` of the first reference, which has `reference_bytes`; `label_nll_nats`, for a
    choice, sums over each label's. `scores` and `base_scores`: per-example value of each metric that has one.
    """

    id: str
    prompt: str
    references: list[str]
    reference_bytes: int = 0
    tokens: int = 0
    prediction: str
    base_prediction: str
    few_shot_prediction: str | None = None
    finished: bool
    base_finished: bool
    few_shot_finished: bool | None = None
    nll_nats: float | None = None
    base_nll_nats: float | None = None
    few_shot_nll_nats: float | None = None
    scores: dict[str, float]
    base_scores: dict[str, float]
    label_tokens: list[int] = []
    label_nll_nats: list[float] = []
    base_label_nll_nats: list[float] = []
    few_shot_label_nll_nats: list[float] = []


class TrainRow(_Part):
    """One line of `train.jsonl`: a logged step. `loss` is nats per trained token, mean since the line before."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    seconds: float
    validation: dict[str, float] = {}
