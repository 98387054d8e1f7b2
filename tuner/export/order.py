"""What is asked of `inlay export`, and what of it is refused before anything is written."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inlay.tuner.export import witness
from inlay.tuner.export.adapter_part import refuse_adapter
from inlay.tuner.export.conversion import refuse_conversion
from inlay.tuner.export.gguf_part import refuse_gguf
from inlay.tuner.export.source import Source
from inlay.tuner.problems import MachineError, Problem, RequestError

RECORD = "export.json"
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "q8_0": 2}
WITHIN = "name a folder within it"
BASES = ("dequantized", "original")


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        targets: finished runs' folders, or folders of adapters that were made elsewhere; several are combined.
        to: the folder to write.
        form: a plain model's folder, a GGUF file with its Modelfile, or the adapter with a loader.
        dtype: of the weights; `q8_0` of a GGUF file alone.
        base: of a run, the weights to merge into, `dequantized` (what was trained on) or `original`; of an adapter, the
            model that it belongs on.
        four_bit: quantize the merged model again.
        recipe, overrides: of an adapter, or of several, whose rows it is proved on.
        as_lora: turn the adapter into one of LoRA.
        rank: of that, or of a combination by singular values.
        combine: how several adapters become one, by PEFT's name of it; `weights`: of each, equal where there are none;
            `density`: the share of numbers that TIES, DARE and pruning keep.
        accept_drift: write the export although the proof finds it to be another model.
        overwrite: replace a folder that is not empty.
    """

    targets: tuple[Path, ...]
    to: Path
    form: Literal["merged", "gguf", "adapter"] = "merged"
    dtype: Literal["fp32", "bf16", "fp16", "q8_0"] = "bf16"
    base: str | None = None
    four_bit: bool = False
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    as_lora: bool = False
    rank: int | None = None
    combine: str | None = None
    weights: tuple[float, ...] = ()
    density: float | None = None
    accept_drift: bool = False
    overwrite: bool = False

    @property
    def merged_dtype(self) -> str:
        """Of the merged model: a GGUF file is made of one in fp32."""
        return "fp32" if self.form == "gguf" else self.dtype

    @property
    def into(self) -> str:
        """The weights to merge into, where a run is exported."""
        return self.base if self.base in BASES else BASES[0]

    @property
    def part(self) -> str:
        """What of the work becomes the target."""
        return "quantized" if self.four_bit else self.form


def refuse_arguments(order: Order) -> None:
    """What contradicts itself, whatever the target is.

    Raises:
        RequestError: with the nearest fix.
    """
    if not order.targets:
        raise RequestError("no run and no adapter is named")
    if order.as_lora and order.form != "adapter":
        raise RequestError(f"LoRA stays beside its base: it has no --format {order.form}", help="leave out --format")
    if order.rank is not None and order.rank < 1:
        raise RequestError(f"--rank {order.rank}: a rank is 1 at least")
    if order.rank is not None and not order.as_lora and not order.combine:
        raise RequestError("--rank is of what --as-lora or --combine makes", help="add one of them")
    if not order.combine and (order.weights or order.density is not None):
        raise RequestError("--weights and --density say how adapters are combined", help="add --combine cat, or ties")


def refuse(order: Order, source: Source, into: str) -> None:
    """What is known to be wrong before anything is written.

    Args:
        into: the weights to merge into, `dequantized` or `original`.

    Raises:
        RequestError, MachineError: with the reason.
    """
    method, facts = source.setting.method, source.setting.facts
    if order.form == "merged" and order.dtype == "q8_0":
        raise RequestError("q8_0 is a kind of GGUF file", help="add --format gguf, or export with --quantize 4bit")
    if order.form == "gguf" and order.four_bit:
        raise RequestError("a GGUF file has no bitsandbytes weights", help="use --dtype q8_0 instead")
    if order.form == "adapter":
        if order.four_bit or into == "original":
            raise RequestError("an adapter is not merged, so there is nothing to quantize and no base to choose")
        (refuse_conversion if order.as_lora else refuse_adapter)(source)
    elif not method.mergeable:
        raise RequestError(
            f"{method.title} cannot be merged: it is no change of the base's weights",
            help="--format adapter writes it with a loader; `inlay ls methods` shows which methods merge",
        )
    if into == "original" and source.setting.files.stored:
        raise RequestError(
            f"there are no original weights here: those of `{source.setting.files.name}` are quantized already",
            help="leave out --base",
        )
    if into == "original" and not order.accept_drift:
        raise RequestError(
            "the original weights are not those that the adapter was trained on, so the merged model is another one",
            help="merge into the dequantized weights, or add --accept-drift to have the difference measured and kept",
        )
    _refuse_target(order)
    if order.form == "gguf":
        refuse_gguf(source)
    needed = facts.parameters * (BYTES[order.merged_dtype] + order.four_bit) + 2 * witness.LOGIT_BYTES
    if order.form == "gguf":
        needed += facts.parameters * BYTES[order.dtype]
    place = next(path for path in order.to.absolute().parents if path.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise MachineError(f"the export needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on `{place}`")


def _refuse_target(order: Order) -> None:
    to = order.to
    if to.is_symlink() or (to.exists() and not to.is_dir()):
        raise RequestError(Problem(f"`{to}` is no folder", file="--to", help="name another one"))
    if to.is_dir() and os.path.ismount(to):
        raise RequestError(Problem(f"`{to}` is a mount point, which no folder can replace", file="--to", help=WITHIN))
    if not to.is_dir() or not any(to.iterdir()):
        return
    if not (to / RECORD).is_file():
        raise RequestError(Problem(f"`{to}` is not empty, and no export", file="--to", help="name another folder"))
    if not order.overwrite:
        help = "name another folder, or add --overwrite to replace it"
        raise RequestError(Problem(f"`{to}` holds an export", file="--to", help=help))
