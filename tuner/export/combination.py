"""Several adapters of one base as one, which is measured, proved and shipped like an adapter that was trained."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inlay import adapters
from inlay.adapters.lora import APART, COMBINATIONS, WHOLE, Lora, write
from inlay.adapters.lora import combine as combine_factors
from inlay.tuner import adapter_folder
from inlay.tuner import base as base_models
from inlay.tuner.architecture import without_weights
from inlay.tuner.console import Progressing
from inlay.tuner.export.merge import hollow_base
from inlay.tuner.export.order import BASES, Order
from inlay.tuner.export.records import CombinationRecord, PartRecord, ScorePair
from inlay.tuner.export.source import Source, benchmarked_record, from_adapter, from_run, measured_ids
from inlay.tuner.problems import RequestError, explained
from inlay.tuner.recipe import load
from inlay.tuner.records import RunRecord, ScoreRecord
from inlay.tuner.saved import own_recipe

DENSITY = 0.5


@dataclass(frozen=True)
class Part:
    """One of the adapters.

    Attributes:
        name: of the folder that was named.
        target: that folder, a run's or an adapter's; `adapter`: the adapter's.
        method: its options.
        record: of its run; None where it was made elsewhere.
    """

    name: str
    target: Path
    adapter: Path
    method: Lora
    weight: float
    record: RunRecord | None


@dataclass(frozen=True)
class Combination:
    """What is to be combined, and how; all of it is checked.

    Attributes:
        source: of the part whose base, rows and decoding are taken.
        kind: PEFT's `combination_type`.
        density: share of the numbers to keep; None where all are.
        rank: asked for; None for PEFT's own.
    """

    source: Source
    parts: tuple[Part, ...]
    kind: str
    density: float | None
    rank: int | None

    @property
    def seed(self) -> int | None:
        """Of what is drawn; None where nothing is."""
        return self.source.setting.recipe.seed if self.kind.startswith("dare") else None


def survey_parts(order: Order) -> Combination:
    """Reads the adapters' options and what is noted of their bases; no weights.

    Raises:
        RequestError, AnswerNo: they cannot be combined as asked.
    """
    kind = _kind(order)
    weights = _weights(order, kind)
    density = _density(order, kind)
    if order.rank is not None and kind not in WHOLE:
        raise RequestError(f"the rank of --combine {kind} follows from its parts", help=f"one of {', '.join(WHOLE)}")
    parts = tuple(_part(target, weight) for target, weight in zip(order.targets, weights, strict=True))
    if kind in APART:
        _refuse_other_ranks(parts, kind)
    source = _lead(order, parts)
    for part in parts:
        _refuse_other_base(part, source)
    name = "+".join(part.name for part in parts)
    source = replace(source, name=name, benchmarked={}, origin=_origin(parts, kind))
    return Combination(source, parts, kind, density, order.rank)


def combine(combination: Combination, folder: Path, show: Progressing) -> Source:
    """Writes the combined adapter into `folder`.

    Returns:
        The adapter on the base, and with the rows, of the combination's source.

    Raises:
        RequestError: an adapter does not fit.
    """
    setting, parts = combination.source.setting, combination.parts
    show.say(f"combine {len(parts)} adapters by {combination.kind}")
    with explained("the adapters cannot be combined", ValueError):
        factors = combine_factors(
            [(part.method, part.adapter) for part in parts],
            [part.weight for part in parts],
            combination.kind,
            hollow_base(setting),
            setting.facts,
            density=combination.density,
            rank=combination.rank,
            seed=combination.seed or 0,
        )
        write(folder, factors, without_weights(base_models.read_config(setting.files)), setting.facts)
    for part in reversed(parts):
        adapter_folder.copy_base(part.adapter, folder)
    recipe = adapter_folder.as_saved(setting.recipe, folder, asked_first=False)
    return replace(combination.source, adapter=folder, setting=setting.adapted_as(recipe))


def combination_record(combination: Combination, source: Source, scores: dict[str, ScorePair]) -> CombinationRecord:
    """What was combined, beside what each part scores alone.

    Args:
        source: what `combine` returned.
        scores: of the combination.
    """
    recipe = source.setting.recipe
    parts = [
        PartRecord(
            name=part.name,
            run=part.record.id if part.record else "",
            adapter_sha256=adapter_folder.weights_sha256(part.adapter),
            weight=part.weight,
            scores=_alone(part, source, scores),
        )
        for part in combination.parts
    ]
    return CombinationRecord(
        kind=combination.kind,
        density=combination.density,
        rank=source.setting.method.options.r,
        seed=combination.seed,
        rows=f"the {recipe.eval.split} rows of {recipe.name}",
        parts=parts,
    )


def _kind(order: Order) -> str:
    kind = order.combine
    if len(order.targets) < 2:
        raise RequestError("--combine makes one adapter of several, and one is named", help="name another run")
    if kind is None:
        help = "add --combine cat, their weighted sum; or another of " + ", ".join(COMBINATIONS[1:])
        raise RequestError("several adapters are named, and it is not said how to combine them", help=help)
    if kind not in COMBINATIONS:
        close = difflib.get_close_matches(kind, COMBINATIONS, n=1)
        help = f"did you mean {close[0]}?" if close else f"one of {', '.join(COMBINATIONS)}"
        raise RequestError(f"--combine {kind} is no way of PEFT's to combine adapters", help=help)
    if order.as_lora:
        raise RequestError("adapters that can be combined are LoRA already", help="leave out --as-lora")
    return kind


def _weights(order: Order, kind: str) -> Sequence[float]:
    count, weights = len(order.targets), order.weights
    if not weights:  # TIES takes a mean of its own, over the parts that agree on a sign
        return [1.0 if "ties" in kind else 1 / count] * count
    if len(weights) != count:
        raise RequestError(f"--weights has {len(weights)} numbers for {count} adapters", help="give one for each")
    for weight in weights:
        if not math.isfinite(weight) or weight == 0:
            raise RequestError(f"a weight of {weight:g} in --weights", help="leave that adapter out")
        if weight < 0 and "ties" in kind:
            raise RequestError(
                f"a weight of {weight:g} in --weights: with {kind}, PEFT lets the adapters vote on each sign before it "
                "weighs them, so this one would vote for what it is to be taken off of",
                help="combine with cat or svd, or give weights above 0",
            )
    return weights


def _density(order: Order, kind: str) -> float | None:
    density = order.density
    if not any(part in kind for part in ("ties", "dare", "prune")):
        if density is not None:
            raise RequestError(f"--combine {kind} keeps all numbers", help="leave out --density")
        return None
    if density is not None and not 0 < density <= 1:
        raise RequestError(f"--density is a share, above 0 and at most 1, not {density:g}")
    return DENSITY if density is None else density


def _part(target: Path, weight: float) -> Part:
    record = benchmarked_record(target) if (target / adapter_folder.RUN).is_file() else None
    adapter = target / "adapter" if record else target
    saved = adapter_folder.settled(adapter)
    if saved.method != "lora":
        method = adapters.find(saved.method)
        reason = "only adapters of LoRA are"
        if saved.method == "dora":
            reason = "PEFT would combine its A and B, and drop the magnitudes that were trained with them"
        help = "take it out of the combination"
        if method.convertible:
            help = f"inlay export {target} --as-lora --to FOLDER makes one of LoRA of it, which can be"
        raise RequestError(f"`{target}` is an adapter of {method.title}, which is not combined: {reason}", help=help)
    return Part(target.absolute().name, target, adapter, Lora(saved.options), weight, record)


def _refuse_other_ranks(parts: Sequence[Part], kind: str) -> None:
    ranks = [part.method.options.r for part in parts]
    if len(set(ranks)) > 1:
        told = ", ".join(f"{part.name} {rank}" for part, rank in zip(parts, ranks, strict=True))
        other = "svd or cat" if kind == "linear" else f"{kind}_svd"
        raise RequestError(f"--combine {kind} needs adapters of one rank, and these have {told}", help=f"use {other}")


def _lead(order: Order, parts: Sequence[Part]) -> Source:
    """The part whose base is taken, with its own rows or those of the recipe that is named: the first run, or, where
    there is none, the first adapter that says how its base was held."""
    run = next((part for part in parts if part.record), None)
    model = None if order.base in BASES else order.base
    if run is None:
        lead = next((part for part in parts if adapter_folder.noted_base(part.adapter)[1]), parts[0])
        return from_adapter(lead.adapter, model, order.recipe, order.overrides)
    if model:
        raise RequestError(f"--base {model}: the run `{run.name}` knows its base", help="leave out --base")
    if order.overrides and not order.recipe:
        raise RequestError("the first run brings its own recipe", help="leave out --set, or name another by --recipe")
    return from_run(run.target, load(order.recipe, order.overrides) if order.recipe else None)


def _refuse_other_base(part: Part, source: Source) -> None:
    lead = source.adapter.parent if source.adapter.name == "adapter" else source.adapter
    try:
        adapter_folder.refuse_other_base(part.adapter, source.setting.files)
    except RequestError as error:
        message = f"`{part.target}` was not trained on the base of `{lead}`, so they cannot be combined"
        raise RequestError(message, help=error.problems[0].message) from error
    _, noted = adapter_folder.noted_base(part.adapter)
    if noted and noted != str(source.quantization):
        raise RequestError(
            f"`{part.target}` was trained on the base in {noted}, and `{lead}` on it in {source.quantization}: each "
            "corrects other weights"
        )


def _origin(parts: Sequence[Part], kind: str) -> list[tuple[str, str]]:
    return [
        ("combination", kind),
        *((f"part {p.name}", adapter_folder.weights_sha256(p.adapter)) for p in parts),
    ]


def _alone(part: Part, source: Source, scores: dict[str, ScorePair]) -> dict[str, ScoreRecord]:
    """What the part alone scored in its own run, where that was measured in the same way on the same rows."""
    if part.record is None or part.record.metrics is None:
        return {}
    recipe, own = source.setting.recipe, own_recipe(part.target)
    rows = [example.id for example in source.setting.data.examples[recipe.eval.split]]
    alike = own.eval.decoding == recipe.eval.decoding and own.task.prompt == recipe.task.prompt
    if not alike or measured_ids(part.target) != rows:
        return {}
    known = {name: pair.reference.signature for name, pair in scores.items()}
    return {name: score for name, score in part.record.metrics.tuned.items() if known.get(name) == score.signature}
