"""What an export leaves beside its weights: `export.json`, the proof."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from inlay.tuner.records import ChangeRecord, Environment, ScoreRecord


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Distance(_Part):
    """How far the next-token distributions of two models are apart, over the same answer tokens.

    Attributes:
        examples, tokens: compared.
        same_top: share of the tokens, near ties left out, where both hold the same next token for the likeliest.
        near_ties: tokens where the two likeliest of the reference differ by less than 1e-4 in their logits.
        kl_mean, kl_max: Kullback-Leibler divergence of the second from the first, in nats per token.
        logit_gap: largest absolute difference of two logits.
    """

    examples: int
    tokens: int
    same_top: float
    near_ties: int
    kl_mean: float
    kl_max: float
    logit_gap: float


class ScorePair(_Part):
    """One score of the reference and of the export, and the paired change."""

    reference: ScoreRecord
    export: ScoreRecord
    change: ChangeRecord


class Proof(_Part):
    """What the comparison of export and benchmarked model found.

    The reference is the base and the adapter, opened from disk and computed in fp32.

    Attributes:
        distance: of the export from the reference.
        floor: of the reference computed in the export's dtype from itself in fp32: what that dtype alone does; None for
            fp32.
        kl_limit: what `distance.kl_mean` may be, in nats per token.
        rows: of the benchmark.
        same_texts: rows with the same output; `tied_texts`: of an fp32 export, other rows whose reference passes a near
            tie.
        same_prompts: rows whose prompt the export's own chat template renders to the tokens of training; None where it
            has no template, or the format of training is not known.
        benchmark_nll: largest relative difference of an answer's likelihood between the run's benchmark and the
            reference before it was put into fp32; None where the run is not at hand.
        int8: how far the benchmarked model is from the reference, which has its dequantized weights, where it was in 8
            bits and rounded its activations to int8; None where it was not.
        scores: by name.
        beyond_dtype: changes of the scores that moved, where they moved against the reference in the export's dtype
            too: these against that one.
        faults: why the export does not prove itself; empty where it does.
    """

    distance: Distance
    floor: Distance | None
    kl_limit: float
    rows: int
    same_texts: int
    tied_texts: int
    same_prompts: int | None
    benchmark_nll: float | None
    int8: Distance | None = None
    scores: dict[str, ScorePair]
    beyond_dtype: dict[str, ChangeRecord] = {}
    faults: list[str] = []


class BasePart(_Part):
    """The base, and how it was held when the adapter was benchmarked on it."""

    model: str
    revision: str | None
    sha256: str
    quantization: str
    compute_dtype: str


class GgufRecord(_Part):
    """A GGUF file against the merged model, by logits of prompts and greedy replies; both computed in fp32.

    Attributes:
        kind: `f32`, `f16`, `bf16` or `q8_0`.
        tokens: compared, the last of each prompt.
        logit_gap: the largest absolute difference; `same_top`: the share with the same next token.
        replies: prompts that were continued; `same_replies`: with the same tokens.
        notes: what the format does not hold.
    """

    kind: str
    tokens: int
    logit_gap: float
    same_top: float
    replies: int
    same_replies: int
    notes: list[str]


class ConversionRecord(_Part):
    """An adapter that was turned into one of LoRA: its rank, the bytes of its weights and of the original's.

    Attributes:
        left_out: of the size (Frobenius norm) of a layer's update, at most; 0 where no more than rounding is.
    """

    rank: int
    left_out: float
    bytes: int
    own_bytes: int


class PartRecord(_Part):
    """One of several adapters that were combined.

    Attributes:
        run: the id of its run; empty where it was made elsewhere.
        scores: of it alone, from its own run, where that was measured on the same rows with the same decoding.
    """

    name: str
    run: str
    adapter_sha256: str
    weight: float
    scores: dict[str, ScoreRecord]


class CombinationRecord(_Part):
    """How several adapters became one.

    Attributes:
        kind: PEFT's `combination_type`.
        density: share of the numbers that were kept; None where all are.
        rank: of what was made.
        seed: of what was drawn; None where nothing is.
        rows: whose rows it is measured on.
    """

    kind: str
    density: float | None
    rank: int
    seed: int | None
    rows: str
    parts: list[PartRecord]


class ExportRecord(_Part):
    """`export.json`.

    Attributes:
        merged_into: `dequantized` (what the adapter was trained on) or `original`; empty of an adapter beside its base.
        dtype: of the merged weights; of an adapter, that its base computes in.
        quantization: of the weights written, where the merged ones were quantized again; empty where they were not.
        adapter_sha256: of the adapter's weights.
        weights: sha256 of each weights file by name.
        proof: of the merged model; `quantized`: what quantizing it again costs; `gguf`: the GGUF file made of it.
        converted: of an adapter that was turned into LoRA; `combination`: of one that was made of several.
        accepted: the proof has faults and the export was asked for in spite of them.
        peak_bytes: of merging and writing.
    """

    schema_version: Literal[1] = 1
    name: str
    method: str
    merged_into: Literal["dequantized", "original", ""]
    dtype: str
    quantization: str
    base: BasePart
    adapter_sha256: str
    weights: dict[str, str]
    proof: Proof
    quantized: Proof | None
    gguf: GgufRecord | None
    converted: ConversionRecord | None = None
    combination: CombinationRecord | None = None
    accepted: bool
    peak_bytes: int
    seconds: float
    environment: Environment
