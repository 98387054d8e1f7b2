"""The benchmarked model, opened from disk again: base and adapter, questioned in fp32."""

from __future__ import annotations

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
# Of an answer's likelihood: between the benchmark and the same model opened again, in the same dtype.
REOPENED = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.1}


def question_reference(
    setting: Setting,
    adapter: Path,
    quantization: Quantization,
    questions: Questions,
    *,
    dtype: str,
    benchmarked: Mapping[str, float],
    progress: benchmark.Progress,
) -> proof.Reference:
    """Opens base and adapter from disk and questions them.

    Args:
        quantization: as the benchmark had it.
        dtype: of the export; the floor is measured in it.
        benchmarked: what the run's benchmark found, likelihoods by example; empty where there is no run.

    Raises:
        AnswerNo: this is not the model that was benchmarked.
    """
    asked = setting.recipe.base.attention
    exact = EXACT if asked == FLASH else asked
    benchmarks = asked if _runs_here(asked) else exact
    model, computed = _open(setting, adapter, quantization, benchmarks)
    reopened = _refuse_another(model, setting, questions, computed, benchmarked)
    if benchmarks != exact:
        del model  # two do not fit where one does
        model, _ = _open(setting, adapter, quantization, exact)
    compute_in(model.model, base_models.dtype_of("fp32"))
    logits = witness.logits(model, questions, setting.renderer)
    records = witness.question(model, questions, setting.renderer, progress)
    floor = None
    if dtype != "fp32":
        compute_in(model.model, base_models.dtype_of(dtype))
        floor = proof.distance(logits, witness.logits(model, questions, setting.renderer))
    return proof.Reference(model, records, logits, floor, reopened)


def _runs_here(attention: str) -> bool:
    return attention != FLASH or (base_models.on_gpu() and find_spec("flash_attn") is not None)


def _open(setting: Setting, adapter: Path, quantization: Quantization, attention: str) -> tuple[Scorable, str]:
    """Base and adapter from disk, and the dtype that they compute in."""
    base = base_models.open_base(
        setting.files,
        quantization,
        setting.facts,
        setting.tokenizer,
        attention=attention,
        float_targets=_plain_targets(setting, quantization),
    )
    with explained(f"the adapter in `{adapter}` does not fit", ValueError):
        adapted = setting.method.load(adapter, base.model, setting.facts)
    return benchmark.scorable(setting, base, adapted), base.compute_dtype


def _plain_targets(setting: Setting, quantization: Quantization) -> tuple[str, ...]:
    """Layers of the reference that are dequantized: those that the method needs so, and all 8-bit ones, which round
    their inputs too, so that no plain layer computes the same."""
    if quantization.bits == 8:
        return tuple(setting.facts.linears)
    return setting.method.targets(setting.facts) if setting.method.needs_float_weights else ()


def _refuse_another(
    model: Scorable, setting: Setting, questions: Questions, computed: str, benchmarked: Mapping[str, float]
) -> float | None:
    """How far the likelihoods are from the benchmark's."""
    some = [example for example in questions.examples if example.id in benchmarked]
    if not some or setting.quantization.bits == 8:
        return None
    found = score_examples(model, some, setting.renderer, batch_size=questions.batch_size)
    apart = max(
        abs(nll - benchmarked[example.id]) / max(abs(benchmarked[example.id]), 1.0)
        for example, (nll, _) in zip(some, found, strict=True)
    )
    if apart > REOPENED[computed]:
        raise AnswerNo(
            f"base and adapter, opened again, are not the model that was benchmarked: an answer's likelihood differs "
            f"by {apart:.1%}",
            help="the adapter, the base or the data has changed since, or this machine quantizes otherwise; "
            "`inlay eval` measures what is there now",
        )
    return apart
