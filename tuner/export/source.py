"""What is exported: a run's adapter with all that its benchmark found, or an adapter that was made elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from inlay.tuner import adapter_folder
from inlay.tuner import base as base_models
from inlay.tuner.export.records import BasePart
from inlay.tuner.model_files import locate
from inlay.tuner.problems import AnswerNo, RequestError
from inlay.tuner.quantization import HELD, Quantization, settle
from inlay.tuner.recipe import Recipe, load
from inlay.tuner.records import Prediction, RunRecord
from inlay.tuner.report import read_record
from inlay.tuner.setting import Setting, survey

ROWS = "quickstart"  # the recipe whose rows an adapter from elsewhere is proved on, unless another is named


@dataclass(frozen=True)
class Source:
    """An adapter and the model that it makes.

    Attributes:
        name: what to call the export.
        adapter: the folder of the adapter.
        setting: base, data and method.
        quantization: of the base as it was benchmarked, wherever that was; the dtype that it computed in decides what
            its weights were quantized from.
        benchmarked: the likelihoods that a run's benchmark found, by example.
        origin: where it comes from, for the card.
        formatted: the recipe is the one that it was trained by, so that prompts and decoding are its own.
    """

    name: str
    adapter: Path
    setting: Setting
    quantization: Quantization
    benchmarked: Mapping[str, float] = field(default_factory=dict)
    origin: Sequence[tuple[str, str]] = ()
    formatted: bool = True

    @property
    def base(self) -> BasePart:
        """The base as the record holds it."""
        files = self.setting.files
        return BasePart(
            model=files.name,
            revision=files.revision,
            sha256=files.sha256(),
            quantization=str(self.quantization),
            compute_dtype=self.quantization.compute_dtype,
        )


def from_run(run: Path, rows: Recipe | None = None) -> Source:
    """The adapter of a finished run.

    Args:
        rows: another recipe, whose rows it is to be measured on.

    Raises:
        RequestError: the run is not finished, or its base has changed.
        AnswerNo: its adapter has changed.
    """
    record = benchmarked_record(run)
    assert record.base is not None
    recipe, adapter = load(run / "recipe.yaml", ["adapter.start_from=null"], anywhere=True), run / "adapter"
    if rows is not None:
        recipe = adapter_folder.as_saved(rows.on_base_of(recipe), adapter, asked_first=False)
    else:
        recipe = _with_labels(recipe, record)
    setting = survey(recipe, (recipe.eval.split,), train=False)
    adapter_folder.refuse_other_base(adapter, setting.files)
    return Source(
        name=record.name,
        adapter=adapter,
        setting=setting,
        quantization=replace(setting.quantization, compute_dtype=record.base.compute_dtype),
        benchmarked=_likelihoods(run) if rows is None else {},
        origin=_origin(record),
    )


def benchmarked_record(run: Path) -> RunRecord:
    """What a finished run says of itself; its adapter is the one that was benchmarked.

    Raises:
        RequestError: the run is not finished.
        AnswerNo: its adapter has changed.
    """
    record = read_record(run)
    if record.status != "complete" or record.base is None or record.adapter is None:
        raise RequestError(
            f"the run `{run}` is {record.status}, so there is nothing that was benchmarked to export",
            help=f"finish it first: inlay run {run}/recipe.yaml",
        )
    adapter = run / "adapter"
    found = adapter_folder.weights_sha256(adapter)
    if record.adapter.sha256 and found != record.adapter.sha256:
        raise AnswerNo(
            f"{adapter / adapter_folder.WEIGHTS} is not what was benchmarked: its sha256 is {found[:12]}, "
            f"the run recorded {record.adapter.sha256[:12]}",
            help="the file has changed since; `inlay eval` measures what is there now",
        )
    return record


def from_adapter(adapter: Path, model: str | None, recipe: str | None, overrides: Sequence[str]) -> Source:
    """An adapter that was made elsewhere with PEFT, on a base that is named.

    Args:
        recipe: the one that it was trained by, whose rows it is proved on; embedded rows where it is None.
        overrides: of that recipe. How the base was held has to be known: from a note beside the adapter, or from
            `base.quantization.bits`.

    Raises:
        RequestError: no base is named, it is not known how it was held, or the adapter does not fit.
    """
    if model is None:
        raise RequestError(f"`{adapter}` is no run, so its base has to be named", help="add --base MODEL")
    _, noted = adapter_folder.noted_base(adapter)
    held = adapter_folder.quantization_called(noted)
    named = any(line.startswith("base.quantization.bits=") for line in overrides)
    files = locate(model)
    if held:
        held = settle(held, HELD, files.stored, files.name)
    if held is None and not named and recipe is None and files.stored is None:
        raise RequestError(
            f"nothing beside the adapter in `{adapter}` says how its base was held, and it corrects those very weights",
            help="add --set base.quantization.bits=4, or 8, 16 or 32: what it was trained on",
        )
    if held and named:
        raise RequestError(f"it is noted beside the adapter that its base was held in {noted}", help="leave out --set")
    rows = load(recipe, overrides) if recipe else load(ROWS, ["task.truncate=true", *overrides])
    asked = adapter_folder.as_saved(rows.on_base(model), adapter, asked_first=False)
    setting = survey(asked, (asked.eval.split,), train=False)
    adapter_folder.refuse_other_base(adapter, setting.files)
    own = held or setting.quantization
    setting = replace(setting, facts=replace(setting.facts, bits=own.bits))
    device = "cuda:0" if base_models.on_gpu() else "cpu"
    dtype = base_models.compute_dtype_of(own, device)
    return Source(
        name=adapter.absolute().name,
        adapter=adapter,
        setting=setting,
        quantization=replace(own, compute_dtype=base_models.dtype_name(dtype)),
        origin=[("adapter", adapter.absolute().name)],
        formatted=recipe is not None,
    )


def _with_labels(recipe: Recipe, record: RunRecord) -> Recipe:
    """The recipe with the labels that the benchmark chose among, where it leaves them to the training rows."""
    if recipe.task.labels or not record.eval or not record.eval.labels:
        return recipe
    labels = {label: label for label in record.eval.labels}
    return recipe.model_copy(update={"task": recipe.task.model_copy(update={"labels": labels})})


def measured_ids(run: Path) -> list[str]:
    """The ids of the rows that a run was measured on, in their order."""
    return [line.id for line in _predictions(run)]


def _likelihoods(run: Path) -> dict[str, float]:
    return {line.id: line.nll_nats for line in _predictions(run) if line.nll_nats is not None}


def _predictions(run: Path) -> list[Prediction]:
    lines = (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [Prediction.model_validate(json.loads(line)) for line in lines]


def _origin(record: RunRecord) -> list[tuple[str, str]]:
    return [
        ("run", record.id),
        ("recipe hash", record.recipe_hash),
        ("seed", str(record.seed)),
    ]
