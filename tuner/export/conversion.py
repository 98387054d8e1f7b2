"""An adapter of another method as one of LoRA, for servers that load no other.

The matrix that the adapter adds to a layer's weight is taken apart into its singular values, and the largest are kept.
One rank serves all layers: vLLM reads `r` and `lora_alpha`, and passes over a rank for each layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inlay.adapters.lora import MOST, write
from inlay.tuner import adapter_folder
from inlay.tuner import base as base_models
from inlay.tuner.architecture import without_weights
from inlay.tuner.console import Progressing
from inlay.tuner.export.merge import hollow_base
from inlay.tuner.export.records import ConversionRecord
from inlay.tuner.export.source import Source
from inlay.tuner.problems import RequestError, explained

if TYPE_CHECKING:
    from torch import Tensor

NEGLIGIBLE = 1e-5  # of the size of a layer's update: what is left out at most, where no rank is asked for


def refuse_conversion(source: Source) -> None:
    """Says before anything is written why there is no LoRA of the adapter.

    Raises:
        RequestError: PEFT cannot convert it, or it is one already.
    """
    method = source.setting.method
    if source.setting.recipe.adapter.method == "lora":
        raise RequestError("the adapter is LoRA already", help="--format adapter writes it as it is, with a loader")
    if not method.convertible:
        reason, way = "it does not change the base's weights", "--format adapter writes it as it is"
        if method.mergeable:
            reason, way = "PEFT cannot tell what it adds to a weight", "--format merged makes a plain model of it"
        help = f"{way}; `inlay ls methods` shows which can"
        raise RequestError(f"{method.title} cannot be turned into LoRA: {reason}", help=help)


def convert(source: Source, folder: Path, rank: int | None, show: Progressing) -> ConversionRecord:
    """Writes the adapter as one of LoRA into `folder`.

    Args:
        rank: the largest; by default the smallest that leaves out no more than `NEGLIGIBLE`.

    Raises:
        RequestError: the adapter does not fit.
    """
    setting = source.setting
    show.say(f"convert {setting.method.title} to LoRA")
    with explained(f"the adapter in `{source.adapter}` does not fit", ValueError):
        adapted = setting.method.load(source.adapter, hollow_base(setting), setting.facts)
    names, factors, lost = setting.method.targets(setting.facts), {}, 0.0
    for done, name in enumerate(names):
        show.step("converting", done, len(names))
        *factors[name], left_out = _cut(*adapted.factors(name), min(rank or MOST, MOST))
        lost = max(lost, left_out)
    made = write(folder, factors, without_weights(base_models.read_config(setting.files)), setting.facts)
    adapter_folder.copy_base(source.adapter, folder)
    return ConversionRecord(
        rank=made.options.r,
        left_out=lost,
        bytes=(folder / adapter_folder.WEIGHTS).stat().st_size,
        own_bytes=(source.adapter / adapter_folder.WEIGHTS).stat().st_size,
    )


def _cut(a: Tensor, b: Tensor, most: int) -> tuple[Tensor, Tensor, float]:
    """The factors at the smallest rank that leaves out next to nothing, or at `most`, and the share of the update's
    size (Frobenius norm) that is left out.

    Args:
        a, b: rank x in and out x rank, as `Adapted.factors` gives them.
    """
    energy = b.double().square().sum(0)
    tail = energy.flip(0).cumsum(0).flip(0)  # what is left out by keeping as many as stand before
    needed = int((tail > NEGLIGIBLE**2 * tail[0]).sum())
    rank = max(1, min(needed, most))
    left_out = float((tail[rank] / tail[0]).sqrt()) if rank < needed else 0.0
    return a[:rank], b[:, :rank], left_out
