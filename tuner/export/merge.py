"""The adapter written into the very weights that it was trained on, one layer at a time.

A 4-bit layer computes with its dequantized weights, so these are what the adapter has learned to correct: they are
dequantized again, the adapter is merged in fp32, and the result is cast last. The base comes from disk and has never
run, and one merged layer is held at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.adapters import Adapted
from inlay.tuner import base as base_models
from inlay.tuner.architecture import without_weights
from inlay.tuner.problems import explained
from inlay.tuner.quantization import Quantization
from inlay.tuner.setting import Setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def merged_tensors(setting: Setting, adapter: Path, quantization: Quantization) -> Iterator[tuple[str, Tensor]]:
    """The merged model's tensors in fp32, on the CPU, by the names that the plain model gives them; tied ones once.

    Args:
        adapter: the folder of a saved adapter of a mergeable method.
        quantization: of the base to merge into: as the adapter was trained on, or 32 bits for the original weights.

    Raises:
        RequestError: the adapter does not fit.
    """
    import torch

    adapted, sources = _open(setting, adapter, quantization)
    # Where the method trains on plain layers, these held the weights as the base computes with them.
    trained = setting.method.targets(setting.facts) if setting.method.needs_float_weights else ()
    dtypes = dict.fromkeys(trained, base_models.compute_dtype_of(quantization, "cpu"))
    skeleton = without_weights(base_models.read_config(setting.files))
    once = {name for name, _ in skeleton.named_parameters()}
    for name, module in skeleton.named_modules():
        keys = [key for key, _ in module.named_parameters(recurse=False) if _full(name, key) in once]
        if keys:
            merged = adapted.merge(name, _plain(sources[name], dtypes.get(name, torch.float32)))
            for key in keys:
                yield _full(name, key), _stored(merged, key, module)
        for key, _ in module.named_buffers(recurse=False):
            if key not in module._non_persistent_buffers_set:
                yield _full(name, key), getattr(sources[name], key).cpu()


def _open(setting: Setting, adapter: Path, quantization: Quantization) -> tuple[Adapted, Mapping[str, nn.Module]]:
    """The adapter on a base whose target layers hold no weights, and the base's own modules by name."""
    facts = replace(setting.facts, bits=quantization.bits)
    whole = setting.trainable == facts.parameters  # every weight: they all come with the adapter
    base = base_models.open_base(
        setting.files,
        quantization,
        facts,
        setting.tokenizer,
        float_targets=facts.linears if whole else (),
    )
    sources = dict(base.model.named_modules())
    for name in () if whole else setting.method.targets(facts):
        if name in facts.linears:
            base.model.set_submodule(name, _hollow(sources[name]), strict=True)
    base.model.is_quantized = False
    with explained(f"the adapter in `{adapter}` does not fit", ValueError):
        return setting.method.load(adapter, base.model, facts), sources


def hollow_base(setting: Setting) -> nn.Module:
    """The base without weights, its linear layers plain: enough for what an adapter alone says."""
    skeleton = without_weights(base_models.read_config(setting.files))
    for name in setting.facts.linears:
        skeleton.set_submodule(name, _hollow(skeleton.get_submodule(name)), strict=True)
    return skeleton


def _hollow(layer: nn.Module) -> nn.Module:
    """A plain linear layer of the same shape, its weight one zero seen everywhere."""
    import torch

    transposed = not isinstance(layer, torch.nn.Linear)  # GPT-2's own
    wide, narrow = (layer.nf, layer.nx) if transposed else (layer.out_features, layer.in_features)
    plain = torch.nn.Linear(narrow, wide, layer.bias is not None, device="meta")
    plain.weight = torch.nn.Parameter(torch.zeros(1).expand(wide, narrow), requires_grad=False)
    if layer.bias is not None:
        plain.bias = torch.nn.Parameter(layer.bias.detach().float(), requires_grad=False)
    return plain


def _plain(source: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with its weights in fp32: a linear layer of any kind as `nn.Linear`, any other as its own kind.

    Args:
        dtype: that quantized weights are dequantized in.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    if base_models.is_quantized(source):
        weight, bias = base_models.dequantize(source, dtype), source.bias
    elif isinstance(source, Conv1D):
        weight, bias = source.weight.T, source.bias
    else:
        children = source._modules
        source._modules = {}  # the copy is of this module alone
        try:
            return copy.deepcopy(source).float()
        finally:
            source._modules = children
    plain = torch.nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    plain.weight = torch.nn.Parameter(weight.detach().float().contiguous(), requires_grad=False)
    if bias is not None:
        plain.bias = torch.nn.Parameter(bias.detach().float().clone(), requires_grad=False)
    return plain


def _stored(merged: nn.Module, key: str, like: nn.Module) -> Tensor:
    """A tensor of a merged module as the plain model holds it: GPT-2's own layer stores its weight transposed."""
    from transformers.pytorch_utils import Conv1D

    tensor = getattr(merged, key).detach().float()
    turned = key == "weight" and isinstance(like, Conv1D) and not isinstance(merged, Conv1D)
    return (tensor.T if turned else tensor).contiguous().cpu()


def _full(module: str, key: str) -> str:
    return f"{module}.{key}" if module else key
