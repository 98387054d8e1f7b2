"""`inlay export`: merges, proves, and only then gives the folder its name.

Everything is made in a hidden folder beside the target. A kill at any moment leaves that one, which the next export
clears away, and never a target that is half there or not proved.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import inlay
from inlay.tuner import adapter_folder
from inlay.tuner.base import Quantization
from inlay.tuner.console import Progressing, hushed
from inlay.tuner.environment import describe
from inlay.tuner.export import folder as folders
from inlay.tuner.export import proof, witness
from inlay.tuner.export.card import write_card
from inlay.tuner.export.merge import merged_tensors
from inlay.tuner.export.records import ExportRecord, Proof
from inlay.tuner.export.reference import question_reference
from inlay.tuner.export.witness import Questions
from inlay.tuner.meter import PeakMemory
from inlay.tuner.problems import AnswerNo, MachineError, Problem, RequestError
from inlay.tuner.recipe import load
from inlay.tuner.records import Prediction, RunRecord
from inlay.tuner.report import read_record
from inlay.tuner.run_directory import write_whole
from inlay.tuner.setting import Setting, survey
from inlay.tuner.signals import StopRequest

RECORD = "export.json"
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Order:
    """What is asked for; `run` is a finished run's folder."""

    run: Path
    to: Path
    dtype: Literal["fp32", "bf16", "fp16"]
    merged_into: Literal["dequantized", "original"]
    accept_drift: bool
    overwrite: bool


def export(order: Order) -> Path:
    """Writes the merged model of a run and proves that it is the one that was benchmarked.

    Returns:
        The export's folder.

    Raises:
        Failure: the request or the machine was wrong; or the proof failed, and there is no folder.
    """
    started = time.time()
    show = Progressing()
    with hushed(), StopRequest():
        record = _finished(order.run)
        setting = _setting(order.run)
        _refuse(order, record, setting)
        draft = _draft(order.to)
        try:
            with PeakMemory("cpu") as peak:
                _write(order, record, setting, draft, show)
            proved = _prove(order, record, setting, draft, show)
            show.clear()
            made = _record(order, record, proved, draft, peak.bytes, started)
            _refuse_fault(order, made)
            write_whole(draft / RECORD, made.model_dump_json(indent=2) + "\n")
            write_card(draft, made, record, setting)
            _name(draft, order)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return order.to


def _finished(run: Path) -> RunRecord:
    record = read_record(run)
    if record.status != "complete" or record.base is None or record.adapter is None:
        raise RequestError(
            f"the run `{run}` is {record.status}, so there is nothing that was benchmarked to export",
            help=f"finish it first: inlay run {run}/recipe.yaml",
        )
    return record


def _setting(run: Path) -> Setting:
    recipe = load(run / "recipe.yaml", ["adapter.start_from=null"], anywhere=True)
    return survey(recipe, (recipe.eval.split,))


def _refuse(order: Order, record: RunRecord, setting: Setting) -> None:
    """What is known to be wrong before anything is written."""
    assert record.base is not None
    assert record.adapter is not None
    adapter = order.run / "adapter"
    adapter_folder.refuse_other_base(adapter, setting.files)
    found = adapter_folder.weights_sha256(adapter)
    if record.adapter.sha256 and found != record.adapter.sha256:
        raise AnswerNo(
            f"{adapter / adapter_folder.WEIGHTS} is not what was benchmarked: its sha256 is {found[:12]}, "
            f"the run recorded {record.adapter.sha256[:12]}",
            help="the file has changed since; `inlay eval` measures what is there now",
        )
    if not setting.method.mergeable:
        raise RequestError(
            f"{setting.method.title} cannot be merged: it is no change of the base's weights",
            help=f"its adapter is in {adapter}; `inlay ls methods` shows which methods merge",
        )
    if order.merged_into == "original" and not order.accept_drift:
        raise RequestError(
            "the original weights are not those that the adapter was trained on, so the merged model is another one",
            help="merge into the dequantized weights, or add --accept-drift to have the difference measured and kept",
        )
    _refuse_target(order)
    needed = setting.facts.parameters * BYTES[order.dtype] + 2 * witness.LOGIT_BYTES
    place = next(path for path in order.to.absolute().parents if path.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise MachineError(f"the export needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on `{place}`")


def _refuse_target(order: Order) -> None:
    to = order.to
    if to.is_symlink() or (to.exists() and not to.is_dir()):
        raise RequestError(Problem(f"`{to}` is no folder", path="--to", help="name another one"))
    if to.is_dir() and any(to.iterdir()) and not order.overwrite:
        raise RequestError(
            Problem(f"`{to}` is not empty", path="--to", help="name another folder, or add --overwrite to replace it")
        )


def _draft(to: Path) -> Path:
    """An empty hidden folder beside the target; what a killed export left there goes."""
    draft = to.absolute().parent / f".{to.name}.partial"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
    except OSError as error:
        raise MachineError(f"cannot write to `{draft.parent}`: {error.strerror}") from error
    return draft


def _write(order: Order, record: RunRecord, setting: Setting, draft: Path, show: Progressing) -> None:
    show.say(f"merge   {setting.method.title} into the {order.merged_into} base, {order.dtype}")
    tensors = merged_tensors(setting, order.run / "adapter", _quantization(order, record, setting))
    total = setting.facts.parameters

    def counted() -> Iterator:
        done = 0
        for name, tensor in tensors:
            done += tensor.numel()
            show.step("merging", done, total)
            yield name, tensor

    folders.write_weights(draft, counted(), order.dtype)
    folders.write_config(draft, setting, order.dtype)
    folders.write_tokenizer(draft, setting, setting.data.examples[setting.recipe.eval.split])


def _quantization(order: Order, record: RunRecord, setting: Setting) -> Quantization:
    """Of the base to merge into."""
    return Quantization(bits=32) if order.merged_into == "original" else _benchmarked(record, setting)


def _benchmarked(record: RunRecord, setting: Setting) -> Quantization:
    """Of the base as it was benchmarked, wherever that was."""
    assert record.base is not None
    own = setting.quantization
    return replace(own, compute_dtype="fp32" if own.bits == 8 else record.base.compute_dtype)


def _prove(order: Order, record: RunRecord, setting: Setting, draft: Path, show: Progressing) -> Proof:
    questions = _questions(setting)
    answers, other = _question_export(draft, questions, show)
    reference = question_reference(
        setting,
        order.run / "adapter",
        _benchmarked(record, setting),
        questions,
        dtype=order.dtype,
        benchmarked=_benchmark(order.run),
        progress=lambda *step: show.step("reference: " + step[0], *step[1:]),
    )
    same, tied = proof.texts(reference, answers.records, questions, setting.renderer)
    scores = proof.score_pairs(setting.metrics, reference.records, answers.records)
    proved = Proof(
        distance=proof.distance(reference.logits, other),
        floor=reference.floor,
        kl_limit=proof.kl_limit(reference.floor),
        rows=len(answers.records),
        same_texts=same,
        tied_texts=tied,
        same_prompts=answers.prompts,
        benchmark_nll=reference.benchmark_nll,
        scores=scores,
    )
    moved = proof.moved(scores) if reference.floor else []
    if moved:
        records = witness.question(reference.scorable, questions, setting.renderer, show.step)
        again = proof.score_pairs(setting.metrics, records, answers.records)
        moved = {name: again[name].change for name in moved if name in proof.moved(again)}
        proved = proved.model_copy(update={"beyond_dtype": moved})
    return proved.model_copy(update={"faults": proof.faults(proved)})


def _questions(setting: Setting) -> Questions:
    examples = setting.data.examples[setting.recipe.eval.split]
    vocabulary = len(setting.tokenizer)
    return Questions(
        kind=setting.facts.kind,
        examples=examples,
        prompt_format=setting.renderer.prompt_format,
        decoding=setting.decoding,
        batch_size=setting.recipe.eval.batch_size,
        window=setting.renderer.window,
        stride=setting.renderer.stride,
        compared=witness.fitting(setting.renderer, examples, vocabulary),
    )


def _question_export(draft: Path, questions: Questions, show: Progressing) -> tuple[witness.Answers, list]:
    """Lets a fresh process without network open the export and answer."""
    asked, said = draft.with_name(draft.name + ".questions"), draft.with_name(draft.name + ".answers")
    show.say(f"proof   {len(questions.examples)} rows, the export opened by plain transformers in a new process")
    try:
        asked.write_text(questions.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "inlay.tuner.export.witness", str(draft), str(asked), str(said)]
        done = subprocess.run(command, env=_offline(), capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise AnswerNo(f"the export does not open: {last}", help="nothing was written")
        return witness.read_answers(said)
    finally:
        asked.unlink(missing_ok=True)
        shutil.rmtree(said, ignore_errors=True)


def _offline() -> dict[str, str]:
    package = str(Path(inlay.__file__).absolute().parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "HF_HUB_OFFLINE": "1", "USE_HUB_KERNELS": "0", "PYTHONPATH": os.pathsep.join(paths)}


def _benchmark(run: Path) -> dict[str, float]:
    """The likelihoods that the run's benchmark found, by example."""
    lines = (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    found = [Prediction.model_validate(json.loads(line)) for line in lines]
    return {line.id: line.nll_nats for line in found if line.nll_nats is not None}


def _record(
    order: Order, record: RunRecord, proved: Proof, draft: Path, peak_bytes: int, started: float
) -> ExportRecord:
    assert record.base is not None
    assert record.adapter is not None
    return ExportRecord(
        run=record.id,
        method=record.adapter.method,
        form="merged",
        merged_into=order.merged_into,
        dtype=order.dtype,
        base=record.base,
        adapter_sha256=adapter_folder.weights_sha256(order.run / "adapter"),
        weights=folders.hashes(draft),
        proof=proved,
        accepted=bool(proved.faults),
        peak_bytes=peak_bytes,
        seconds=time.time() - started,
        environment=describe("cpu"),
    )


def _refuse_fault(order: Order, made: ExportRecord) -> None:
    assert made.proof is not None
    if not made.proof.faults or order.accept_drift:
        return
    cause = "the merged weights do not compute what base and adapter compute"
    if order.merged_into == "original":
        cause = "the original weights are not the quantized ones that the adapter was trained on"
    raise AnswerNo(
        f"the export is not the model that was benchmarked, and was not written: {'; '.join(made.proof.faults)}",
        help=f"{cause}; --accept-drift writes it with these numbers in its card",
    )


def _name(draft: Path, order: Order) -> None:
    """Puts the finished folder in the target's place, in one move; what was there goes afterwards."""
    old = draft.with_name(draft.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    target = order.to.absolute()
    if target.is_dir():
        os.replace(target, old)
    try:
        os.replace(draft, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
