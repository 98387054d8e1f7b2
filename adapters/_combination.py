"""Several adapters of LoRA as one, the work of PEFT's `add_weighted_adapter`.

PEFT gives what it makes the options of the first adapter, `use_rslora` among them, under which it would be too strong
by the root of its rank. Here every adapter is shown to it with plain scaling, at the strength that it was trained with.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from inlay.adapters import Facts
from inlay.adapters._files import WEIGHTS, read_weights, require_equal_shapes
from inlay.adapters._peft import require_equal_options

if TYPE_CHECKING:
    from inlay.adapters.lora import Lora

MADE = "combined"


def combine(
    parts: Sequence[tuple[Lora, Path]],
    weights: Sequence[float],
    kind: str,
    model: nn.Module,
    facts: Facts,
    *,
    density: float | None,
    rank: int | None,
    seed: int,
) -> dict[str, tuple[Tensor, Tensor]]:
    """See `lora.combine`."""
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The density")  # of 1, which prunes nothing
        wrapped, names = _loaded(parts, model, facts)
        torch.manual_seed(seed)
        wrapped.base_model.add_weighted_adapter(
            names, list(weights), MADE, kind, svd_rank=rank, svd_full_matrices=False, density=density
        )
    layers = {name: layer for name, layer in wrapped.get_base_model().named_modules() if isinstance(layer, LoraLayer)}
    return {name: (layer.lora_A[MADE].weight, layer.lora_B[MADE].weight) for name, layer in layers.items()}


def _loaded(parts: Sequence[tuple[Lora, Path]], model: nn.Module, facts: Facts) -> tuple[PeftModel, list[str]]:
    """The base with all the adapters on it, and their names there."""
    names = [f"part{number}" for number, _ in enumerate(parts)]  # no part of a layer's name, which PEFT would cut out
    for name, (method, folder) in zip(names, parts, strict=True):
        require_equal_options(method.lora_config(model, facts), folder)
        config = _plainly_scaled(method).lora_config(model, facts)
        if name == names[0]:
            wrapped = get_peft_model(model, config, adapter_name=name)
        else:
            wrapped.add_adapter(name, config)
        tensors = read_weights(folder)
        expected = get_peft_model_state_dict(wrapped, adapter_name=name, save_embedding_layers=False)
        require_equal_shapes(expected, tensors, str(folder / WEIGHTS))
        set_peft_model_state_dict(wrapped, tensors, adapter_name=name)
    return wrapped, names


def _plainly_scaled(method: Lora) -> Lora:
    """The same adapter without `use_rslora`."""
    options = method.options
    plain = {"use_rslora": False, "lora_alpha": method.scaling * options.r, "init_lora_weights": True}
    return type(method)(options.model_copy(update=plain))
