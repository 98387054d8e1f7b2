"""What a row cost, and what it forgot, from the records of its cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from inlay.tuner.comparison.records import CostRecord, ForgettingRecord
from inlay.tuner.records import OutsideRecord, RunRecord


def costs(cells: Sequence[RunRecord], merged: float | None) -> CostRecord | None:
    """The mean cost of a row's runs; None where one of them did not train.

    Args:
        merged: latency of any merged adapter, in seconds; None where this one cannot be merged or nobody measured.
    """
    trained = [cell.train for cell in cells if cell.train]
    measured = [cell.eval for cell in cells if cell.eval]
    adapters = [cell.adapter for cell in cells if cell.adapter]
    if not cells or not len(trained) == len(measured) == len(adapters) == len(cells):
        return None
    latencies = [cell.latency_seconds for cell in measured if cell.latency_seconds is not None]
    return CostRecord(
        trainable_parameters=adapters[0].trainable_parameters,
        adapter_bytes=adapters[0].bytes,
        extra_base_bytes=adapters[0].extra_base_bytes,
        train_seconds=fmean(cell.seconds for cell in trained),
        tokens_per_second=fmean(cell.tokens_per_second for cell in trained),
        train_peak_bytes=max(cell.peak_bytes for cell in trained),
        eval_seconds=fmean(cell.seconds for cell in measured),
        eval_peak_bytes=max(cell.peak_bytes for cell in measured),
        latency_seconds=fmean(latencies) if latencies else None,
        merged_latency_seconds=merged,
    )


def forgetting(cells: Sequence[RunRecord]) -> ForgettingRecord | None:
    """Bits per byte on text outside the task, adapted minus base; None where it was not measured for every seed.

    The bits of all texts are divided by the bytes of all; the interval takes a text as an example, as that of any
    other score.
    """
    found = [cell.outside for cell in cells if cell.outside]
    if not cells or len(found) != len(cells) or len({(one.sha256, tuple(one.bytes)) for one in found}) != 1:
        return None
    import numpy as np

    from inlay.eval.spread import measure

    # The influence of each text on the ratio; its mean over texts is the ratio itself.
    bits = np.array([_bits(one) for one in found])
    sizes = np.array(found[0].bytes, dtype=np.float64)
    ratios = bits.sum(axis=1) / sizes.sum()
    scores = ratios[:, None] + (bits - ratios[:, None] * sizes) / sizes.mean()
    value = float(ratios.mean())
    if len(sizes) < 2:
        return ForgettingRecord(value=value, ci95=None, seeds=ratios.tolist())
    half = float(measure(scores)[0].half)
    return ForgettingRecord(value=value, ci95=(value - half, value + half), seeds=ratios.tolist())


def _bits(one: OutsideRecord) -> list[float]:
    """Bits that the adapted model needs more than the base, for each text."""
    return [(new - old) / math.log(2) for new, old in zip(one.nll_nats, one.base_nll_nats, strict=True)]
