"""The benchmarked model, opened from disk again: base and adapter, questioned in fp32."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from inlay.eval.likelihood import score_examples
from inlay.eval.scoring import Scorable
from inlay.tuner import base as base_models
from inlay.tuner import benchmark
from inlay.tuner.export import proof, witness
from inlay.tuner.export.witness import Questions
from inlay.tuner.problems import AnswerNo, explained
from inlay.tuner.quantization import Quantization, compute_in
from inlay.tuner.setting import Setting

# The one kernel computes in 16 bits whatever it is given, the other in what it is given.
FLASH, EXACT = "flash_attention_2", "sdpa"
# Of an answer's likelihood: between the benchmark and the same model opened again, in the same dtype. In 8 bits the
# large activations of a batch decide which columns are not rounded: the same batches give the same likelihoods to the
# bit, as long as the same kernels compute them; with others, an answer moves like in another batch, by percents.
REOPENED = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.1}
REOPENED_INT8 = 0.1


def question_reference(
    setting: Setting,
    adapter: Path,
    quantization: Quantization,
    questions: Questions,
    *,
    dtype: str,
    beside: bool,
    benchmarked: Mapping[str, float],
    progress: benchmark.Progress,
) -> proof.Reference:
    """Opens base and adapter from disk and questions them.

    An 8-bit layer rounds its inputs too, so that no plain layer computes the same. The reference of a merged model is
    then the one with the dequantized weights, and how far the benchmarked one is from it is measured; they are held one
    after the other.

    Args:
        quantization: as the benchmark had it.
        dtype: of the export; the floor is measured in it.
        beside: what is exported is the adapter itself, which stays beside the base.
        benchmarked: what the run's benchmark found, likelihoods by example; empty where there is no run.

    Raises:
        AnswerNo: this is not the model that was benchmarked.
    """
    render, asked = setting.renderer, setting.recipe.base.attention
    exact = EXACT if asked == FLASH else asked
    benchmarks = asked if _runs_here(asked) else exact
    model = _opened(setting, adapter, quantization, benchmarks)
    reopened = _refuse_another(model, setting, questions, quantization, benchmarked)
    rounded = None
    if quantization.bits == 8:
        rounded = witness.logits(model, questions, render)
        if beside:  # on an 8-bit base, which rounds as this one does
            return proof.Reference(model, witness.question(model, questions, render, progress), rounded, None, reopened)
    if rounded or benchmarks != exact:
        del model
        gc.collect()  # what wraps a model refers to itself
        model = _opened(setting, adapter, quantization, exact, plain=bool(rounded))
    compute_in(model.model, base_models.dtype_of("fp32"))
    logits = witness.logits(model, questions, render)
    records = witness.question(model, questions, render, progress)
    floor = None
    if dtype != "fp32":
        compute_in(model.model, base_models.dtype_of(dtype))
        floor = proof.distance(logits, witness.logits(model, questions, render))
    return proof.Reference(
        model, records, logits, floor, reopened, int8=proof.distance(logits, rounded) if rounded else None
    )


def _runs_here(attention: str) -> bool:
    return attention != FLASH or (base_models.on_gpu() and find_spec("flash_attn") is not None)


def _opened(
    setting: Setting, adapter: Path, quantization: Quantization, attention: str, *, plain: bool = False
) -> Scorable:
    """Base and adapter, from disk; `plain`: with the weights of all quantized layers dequantized in fp32."""
    method = setting.method
    base = base_models.open_base(
        setting.files,
        quantization,
        setting.facts,
        setting.tokenizer,
        attention=attention,
        float_targets=method.targets(setting.facts) if method.needs_float_weights else (),
    )
    if plain:
        base_models.dequantize_targets(base.model, setting.facts.linears, base_models.dtype_of("fp32"))
    with explained(f"the adapter in `{adapter}` does not fit", ValueError):
        adapted = method.load(adapter, base.model, setting.facts)
    return benchmark.scorable(setting, base, adapted)


def _refuse_another(
    model: Scorable,
    setting: Setting,
    questions: Questions,
    quantization: Quantization,
    benchmarked: Mapping[str, float],
) -> float | None:
    """How far the likelihoods are from the benchmark's."""
    some = [example for example in questions.examples if example.id in benchmarked]
    if not some:
        return None
    found = score_examples(model, some, setting.renderer, batch_size=questions.batch_size)
    apart = max(
        abs(nll - benchmarked[example.id]) / max(abs(benchmarked[example.id]), 1.0)
        for example, (nll, _) in zip(some, found, strict=True)
    )
    if apart > (REOPENED_INT8 if quantization.bits == 8 else REOPENED[quantization.compute_dtype]):
        raise AnswerNo(
            f"base and adapter, opened again, are not the model that was benchmarked: an answer's likelihood differs "
            f"by {apart:.1%}",
            help="the adapter, the base or the data has changed since, or this machine quantizes otherwise; "
            "`inlay eval` measures what is there now",
        )
    return apart
