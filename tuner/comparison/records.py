"""What a comparison leaves on disk: the schema of `comparison.json`.

Every cell of it (a method with a seed, or a trial of the search) is a run's folder of its own, with the files of any
run. A page, a table or another tool reads these files and needs no model.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from inlay.tuner.records import BaseRecord, DataRecord, Environment

SCHEMA_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EstimateRecord(_Part):
    """One score of one row: mean over seeds, `seeds` one by one, 95 % interval over seeds and examples (over examples
    alone where there is one seed; None where there can be none), and the letters of the groups it belongs to."""

    value: float
    ci95: tuple[float, float] | None
    seeds: list[float]
    group: str
    note: str


class ScoreInfo(_Part):
    """What one score is: its direction, and every setting that can change the number."""

    unit: str
    higher_is_better: bool | None
    ratio: bool
    signature: str


class CostRecord(_Part):
    """What a row cost, mean over its seeds unless it is a size.

    `extra_base_bytes`: memory of target layers that the method needs as plain layers. Peaks are resident memory of the
    process, or device memory on CUDA. Latencies are seconds for one generated token at batch size 1: with the adapter
    beside the base, and merged into plain layers (None where it cannot be merged).
    """

    trainable_parameters: int
    adapter_bytes: int
    extra_base_bytes: int
    train_seconds: float
    tokens_per_second: float
    train_peak_bytes: int
    eval_seconds: float
    eval_peak_bytes: int
    latency_seconds: float | None
    merged_latency_seconds: float | None


class ForgettingRecord(_Part):
    """Bits per byte on text outside the task, adapted model minus base: mean over seeds, with its 95 % interval."""

    value: float
    ci95: tuple[float, float] | None
    seeds: list[float]


class TrialRecord(_Part):
    """One trial of a row's search. `values`: what was tried; `objective`: on the validation rows, None where the trial
    failed; `step`: the step it is from, the last one unless the trial was `stopped` as poor."""

    folder: str
    values: dict[str, object]
    objective: float | None
    step: int
    stopped: bool
    reason: str


class RowRecord(_Part):
    """One row. `kind` tells references (`base`, `few_shot`, `full`) from `method`s. `differs`: what is not as in the
    other rows, in words. `cells`: folders of its seeds, relative to the comparison's, in the order of `seeds`.
    `status` is `refused` before weights load, `failed` in a cell, `incomparable` where `reason` says what differs."""

    label: str
    kind: Literal["method", "base", "few_shot", "full"]
    method: str
    title: str
    options: dict[str, object]
    learning_rate: float | None
    status: Literal["done", "waiting", "failed", "refused", "incomparable"]
    reason: str
    differs: list[str]
    seeds: list[int]
    cells: list[str]
    steps: int
    rows_seen: int
    tokens_seen: int
    scores: dict[str, EstimateRecord]
    cost: CostRecord | None
    forgetting: ForgettingRecord | None
    trials: list[TrialRecord]
    chosen: dict[str, object]
    at_edge: list[str]


class PairRecord(_Part):
    """Row `a` minus row `b` in one score, paired by seed and example: of other seeds and examples where `claim` is
    `seeds`, of these trained models on other examples where it is `examples`. For a ratio scale the difference is in %
    of `b`. `adjusted` is Holm's p-value among all pairs; `apart`: it is below 0.05."""

    a: str
    b: str
    score: str
    value: float
    ci95: tuple[float, float] | None
    unit: str
    p: float
    adjusted: float
    apart: bool
    claim: Literal["seeds", "examples"]


class ComparisonRecord(_Part):
    """`comparison.json`.

    `score` names the one that orders the rows. `heading` and `sentences` are the finding in words; `protocol` what was
    equal; `detectable` the smallest difference in `score` that the rows' own spread lets these seeds and rows find in
    four of five comparisons, None where it cannot be told. `tuning` says how learning rates were chosen.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    name: str
    status: Literal["running", "complete", "interrupted", "failed"]
    reason: str
    created: str
    seconds: float
    command: str
    identity: str
    spec: str
    task: str
    base: BaseRecord | None
    data: DataRecord | None
    environment: Environment | None
    split: str
    examples: int
    decoding: str
    language: str
    seeds: list[int]
    score: str
    score_info: dict[str, ScoreInfo]
    claim: Literal["seeds", "examples"]
    tuning: str
    detectable: float | None
    heading: str
    sentences: list[str]
    protocol: list[str]
    rows: list[RowRecord]
    pairs: list[PairRecord]
