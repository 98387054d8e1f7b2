"""`inlay export`: merges, proves, and only then gives the folder its name.

Everything is made in a hidden folder beside the target, by one process at a time. A kill at any moment leaves that one,
which the next export clears away, and never a target that is half there or not proved.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from inlay.tuner import adapter_folder
from inlay.tuner import base as base_models
from inlay.tuner.console import Progressing, hushed
from inlay.tuner.environment import describe
from inlay.tuner.export import folder as folders
from inlay.tuner.export import proof
from inlay.tuner.export.adapter_part import write_adapter_part
from inlay.tuner.export.card import write_card
from inlay.tuner.export.combination import combination_record, combine, survey_parts
from inlay.tuner.export.conversion import convert
from inlay.tuner.export.gguf_part import write_gguf_part
from inlay.tuner.export.merge import merged_tensors
from inlay.tuner.export.order import BASES, RECORD, Order, refuse, refuse_arguments
from inlay.tuner.export.records import ConversionRecord, ExportRecord, Proof
from inlay.tuner.export.source import Source, from_adapter, from_run
from inlay.tuner.export.trial import Trial
from inlay.tuner.export.workplace import OLD, workplace
from inlay.tuner.meter import PeakMemory
from inlay.tuner.model_files import locate
from inlay.tuner.problems import AnswerNo, MachineError, RequestError
from inlay.tuner.quantization import Quantization
from inlay.tuner.report.figures import percent
from inlay.tuner.run_directory import write_whole
from inlay.tuner.signals import StopRequest


def export(order: Order) -> Path:
    """Writes the merged model and proves that it is the one that was benchmarked.

    Returns:
        The export's folder.

    Raises:
        Failure: the request or the machine was wrong; or the proof failed, and there is no folder.
    """
    started = time.time()
    show = Progressing()
    with hushed(), StopRequest(), workplace(order.to) as work, _explained_memory():
        refuse_arguments(order)
        combination = survey_parts(order) if order.combine or len(order.targets) > 1 else None
        source, into = (combination.source, order.into) if combination else _source(order)
        refuse(order, source, into)
        source = combine(combination, work / "combined", show) if combination else source
        made = _made(order, source, into, work, show)
        show.clear()
        combined = combination_record(combination, source, made.proof.scores) if combination else None
        made = made.model_copy(update={"combination": combined, "seconds": time.time() - started})
        finished = work / order.part
        write_whole(finished / RECORD, made.model_dump_json(indent=2) + "\n")
        write_card(finished, made, source)
        _name(finished, work, order.to.absolute())
    return order.to


@contextlib.contextmanager
def _explained_memory() -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).splitlines()[0]
        help = "nothing was written; it is exported on the CPU with CUDA_VISIBLE_DEVICES= before the command"
        raise MachineError(f"out of memory while exporting: {first}", help=help) from error


def _source(order: Order) -> tuple[Source, str]:
    """What is exported, and which weights it is merged into."""
    (target,) = order.targets
    if not (target / adapter_folder.RUN).is_file():
        return from_adapter(target, order.base, order.recipe, order.overrides), BASES[0]
    if order.recipe or order.overrides:
        raise RequestError("a run brings its own recipe, which was benchmarked", help="leave out --recipe and --set")
    if order.base not in (None, *BASES):
        raise RequestError(
            f"--base {order.base}: a run knows its base; what can be chosen is the weights to merge into",
            help=f"--base {' or '.join(BASES)}",
        )
    return from_run(target), order.into


def _made(order: Order, source: Source, into: str, work: Path, show: Progressing) -> ExportRecord:
    """Merges, and proves what came of it."""
    beside = order.form == "adapter"
    dtype = source.quantization.compute_dtype if beside else order.merged_dtype
    trial = Trial(source, dtype, show, adapter=beside)
    converted = None
    first = work / ("adapter" if beside else "merged")
    first.mkdir()
    with PeakMemory("cuda:0" if base_models.on_gpu() else "cpu") as peak:
        if order.as_lora:
            converted = convert(source, work / "lora", order.rank, show)
            write_adapter_part(replace(source, adapter=work / "lora"), first)
        elif beside:
            write_adapter_part(source, first)
        else:
            _merge(order, source, into, first, show)
    proved = trial.judge(first)
    _refuse_fault(order, proved, into, converted)
    quantized = None
    if order.four_bit:
        held = _quantize(source, order.dtype, work / "merged", work / "quantized", show)
        quantized = trial.judge(work / "quantized")
    gguf = write_gguf_part(source, work / "merged", work / "gguf", order.dtype, show) if order.form == "gguf" else None
    return ExportRecord(
        name=source.name,
        method=source.setting.recipe.adapter.method,
        merged_into="" if beside else into,
        dtype=dtype if beside else order.dtype,
        quantization=held if quantized else "",
        base=source.base,
        adapter_sha256=adapter_folder.weights_sha256(source.adapter),
        weights=folders.hashes(work / order.part),
        proof=proved,
        quantized=quantized,
        gguf=gguf,
        converted=converted,
        accepted=bool(proved.faults),
        peak_bytes=peak.bytes,
        seconds=0.0,
        environment=describe("cuda:0" if base_models.on_gpu() else "cpu"),
    )


def _merge(order: Order, source: Source, into: str, draft: Path, show: Progressing) -> None:
    setting = source.setting
    show.say(f"merge   {setting.method.title} into the {into} base, {order.merged_dtype}")
    quantization = Quantization(bits=32) if into == "original" else source.quantization
    total = setting.facts.parameters

    def counted() -> Iterator:
        done = 0
        for name, tensor in merged_tensors(setting, source.adapter, quantization):
            done += tensor.numel()
            show.step("merging", done, total)
            yield name, tensor

    folders.write_weights(draft, counted(), order.merged_dtype)
    folders.write_config(draft, setting, order.merged_dtype)
    folders.write_generation(draft, source)
    folders.write_tokenizer(draft, source)


def _quantize(source: Source, dtype: str, merged: Path, draft: Path, show: Progressing) -> str:
    """Writes the merged model as a 4-bit checkpoint of bitsandbytes; how it is quantized."""
    setting = source.setting
    own = source.quantization
    quantization = Quantization(4, own.quant_type, own.double_quant, dtype)
    show.say(f"quantize {quantization}")
    base = base_models.open_base(locate(str(merged)), quantization, setting.facts, setting.tokenizer)
    base.model.config.name_or_path = ""
    base.model.save_pretrained(draft)
    for path in merged.iterdir():
        kept = path.name == "generation_config.json" or not (draft / path.name).exists()
        if kept and path.suffix != ".safetensors" and not path.name.startswith("model."):
            shutil.copy2(path, draft)
    for path in draft.glob("*.safetensors"):
        path.chmod(0o644)
    return str(quantization)


def _refuse_fault(order: Order, proved: Proof, into: str, converted: ConversionRecord | None) -> None:
    if not proved.faults or order.accept_drift:
        return
    cause = "what was written does not compute what base and adapter compute"
    if proved.floor and proved.distance.kl_mean <= proved.kl_limit:
        cause = f"rounding to {order.merged_dtype} moves it: --dtype fp32 does not"
    if proof.other_prompts(proved) and len(proved.faults) == 1:
        cause = "the weights are right, but the base's chat template prints a prompt otherwise before it is answered"
    if into == "original":
        cause = "the original weights are not the quantized ones that the adapter was trained on"
    if converted and converted.left_out:
        lost = f"rank {converted.rank} leaves out up to {percent(converted.left_out)} of a layer's update"
        cause = f"{lost}: a higher --rank, or none, leaves out less"
    raise AnswerNo(
        f"the export is not the model that was benchmarked, and was not written: {'; '.join(proved.faults)}",
        help=f"{cause}; --accept-drift writes it with these numbers in its card",
    )


def _name(finished: Path, work: Path, target: Path) -> None:
    """Puts the finished folder in the target's place; what was there goes afterwards."""
    old = work / OLD
    try:
        if target.is_dir():
            os.replace(target, old)
        os.replace(finished, target)
    except BaseException as error:
        if old.is_dir() and not target.exists():
            os.replace(old, target)
        if isinstance(error, OSError):
            raise MachineError(f"`{target}` cannot be put in its place: {error.strerror}") from error
        raise
