"""How a base's weights are held: as a recipe asks for it, or as a 4-bit checkpoint of bitsandbytes holds them already.

What a checkpoint says of itself is checked, in its configuration, in the headers of its files and in every layer that
was read: native code computes with the sizes that stand there and checks none of them. Nothing of it is handed on to a
library but what `Stored` holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from inlay.tuner.problems import Problem, RequestError

if TYPE_CHECKING:
    import torch
    from torch import nn

ComputeName = Literal["auto", "fp32", "bf16", "fp16"]
HELD = ("bits", "quant_type", "double_quant")  # what a checkpoint settles
COMPUTED = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
# What safetensors calls the dtypes that 4-bit codes may be packed in.
PACKED = {"uint8": "U8", "int8": "I8", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
STATE = re.compile(r"(?P<weight>.+)\.quant_state\.bitsandbytes__(?P<kind>\w+)")
BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # weights, or scales, that share a scale
MODULE = re.compile(r"[A-Za-z0-9_.-]{1,200}")  # transformers reads it as a pattern: nothing but a name may get there


class Entry(NamedTuple):
    """What the header of a safetensors file says of a tensor."""

    dtype: str
    bytes: int


@dataclass(frozen=True)
class Quantization:
    """How a base is held in memory: bits 4 (`quant_type` nf4 or fp4), 8, 16 or 32, and the dtype it computes in."""

    bits: Literal[4, 8, 16, 32] = 4
    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = True
    compute_dtype: ComputeName = "auto"

    def __str__(self) -> str:
        if self.bits == 4:
            return f"{self.quant_type}{' double-quantized' if self.double_quant else ''}"
        return {8: "int8", 16: "16-bit", 32: "fp32"}[self.bits]


@dataclass(frozen=True)
class Stored:
    """The 4-bit weights of a checkpoint, as its files hold them.

    Attributes:
        quant_type, double_quant: as of `Quantization`.
        compute_dtype: `fp32`, `bf16` or `fp16`: what it is computed in where nobody asks for another.
        storage: the dtype that its codes are packed in, by torch's name.
        skipped: names of modules, or parts of them, that stay plain; None where the library decides.
        weights: how many are quantized.
        bytes: of their codes and scales.
    """

    quant_type: Literal["nf4", "fp4"]
    double_quant: bool
    compute_dtype: Literal["fp32", "bf16", "fp16"]
    storage: str
    skipped: tuple[str, ...] | None
    weights: int
    bytes: int


def settle(asked: Quantization, named: Collection[str], stored: Stored | None, model: str) -> Quantization:
    """How a model is held: as asked, and what of it is not `named` is what its checkpoint holds.

    Args:
        named: the fields of `asked` that somebody chose.
        stored: None where the model's weights are plain ones.
        model: its name.

    Raises:
        RequestError: the checkpoint holds something else than what is named.
    """
    if stored is None:
        return asked
    held = replace(asked, bits=4, quant_type=stored.quant_type, double_quant=stored.double_quant)
    for field in HELD:
        if field in named and getattr(asked, field) != getattr(held, field):
            wish = f"{field}: {_shown(getattr(asked, field))}"
            message = f"the weights of `{model}` are quantized already, as {held}, and {wish} is asked for"
            help = "leave it out, or name the model that this checkpoint was made of"
            raise RequestError(Problem(message, path=f"base.quantization.{field}", help=help))
    return held


def read_stored(config: object, tensors: Mapping[str, Entry]) -> Stored:
    """What a checkpoint holds, by its configuration and the headers of its files, which have to agree.

    Args:
        config: the `quantization_config` of its config.json.
        tensors: of its files' headers, by name.

    Raises:
        ValueError: it is of another kind, or says of itself what is not so; the message says what.
    """
    _refuse_other_method(config)
    assert isinstance(config, dict)
    kind = _one_of(config, "bnb_4bit_quant_type", "fp4", ("nf4", "fp4"))
    double = _one_of(config, "bnb_4bit_use_double_quant", False, (True, False))
    storage = _one_of(config, "bnb_4bit_quant_storage", "uint8", PACKED)
    computed = _one_of(config, "bnb_4bit_compute_dtype", "float32", COMPUTED)
    skipped = config.get("llm_int8_skip_modules")
    if skipped is not None and not (
        isinstance(skipped, list) and all(isinstance(name, str) and MODULE.fullmatch(name) for name in skipped)
    ):
        raise ValueError("llm_int8_skip_modules in its config.json is no list of module names")
    kinds = {match["weight"]: match["kind"] for match in map(STATE.fullmatch, tensors) if match}
    for weight, found in kinds.items():
        twice, packed = f"{weight}.nested_absmax" in tensors, tensors.get(weight, Entry("nothing", 0))
        if (found, twice, packed.dtype) != (kind, double, PACKED[storage]):
            held = f"{found}{' double-quantized' if twice else ''}, packed in {packed.dtype}"
            raise ValueError(f"`{weight}` is {held}, and quantization_config in its config.json says otherwise")
    parts = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
    scales = sum(tensors[name].bytes for w in kinds for part in parts if (name := f"{w}.{part}") in tensors)
    codes = sum(tensors[weight].bytes for weight in kinds)
    if not codes:
        raise ValueError("config.json says that its weights are 4-bit ones, and its files hold none")
    names = None if skipped is None else tuple(skipped)
    return Stored(kind, double, COMPUTED[computed], storage, names, 2 * codes, codes + scales)


def plain_dtypes(tensors: Mapping[str, Entry]) -> frozenset[str]:
    """The dtypes, by safetensors' names, of the tensors that are no part of a quantized weight."""
    packed = {match["weight"] for match in map(STATE.fullmatch, tensors) if match}
    return frozenset(
        entry.dtype
        for name, entry in tensors.items()
        if name not in packed and f"{name.partition('.weight.')[0]}.weight" not in packed
    )


def dtype_of(name: str) -> torch.dtype:
    """Of `fp32`, `bf16` or `fp16`."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def dtype_name(dtype: torch.dtype) -> str:
    """`fp32`, `bf16` or `fp16`."""
    return COMPUTED[str(dtype).removeprefix("torch.")]


def compute_dtype_of(quantization: Quantization, device: str) -> torch.dtype:
    """`auto`: bf16 on CUDA; fp32 on a CPU, where results are then independent of batching, and on cards without bf16,
    where fp16 gradients would need their loss scaled."""
    import torch

    if quantization.bits == 32:
        return torch.float32
    if quantization.compute_dtype != "auto":
        return dtype_of(quantization.compute_dtype)
    if device == "cpu":
        return torch.bfloat16 if quantization.bits == 16 else torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32


def is_quantized(layer: nn.Module) -> bool:
    """Whether it is a layer of bitsandbytes."""
    return type(layer).__module__.partition(".")[0] == "bitsandbytes"


def fault_of(layer: nn.Module) -> str | None:
    """What is wrong with a 4-bit layer that was read from a checkpoint; None where nothing is."""
    weight, state = layer.weight, getattr(layer.weight, "quant_state", None)
    if state is None:
        return "it is not quantized, and llm_int8_skip_modules in config.json does not name it"
    size = layer.in_features * layer.out_features
    if tuple(state.shape or ()) != (layer.out_features, layer.in_features):
        return f"its shape is not the ({layer.out_features}, {layer.in_features}) of config.json"
    if weight.numel() != (size + 1) // (2 * weight.element_size()):
        return "it has another number of codes than weights"
    inner = state.state2 if state.nested else None
    fault = _fault_of_scales(state, size, 16, "uint8" if inner else "float32")
    return _fault_of_scales(inner, state.absmax.numel(), 256, "float32") if inner and not fault else fault


def _fault_of_scales(state: Any, count: int, values: int, kind: str) -> str | None:
    """What is wrong with the scales of `count` weights, or scales, which are codes of so many values.

    Args:
        state: a QuantState of bitsandbytes.
        kind: the dtype that the scales are to have.
    """
    import torch

    if type(state.blocksize) is not int or state.blocksize not in BLOCKS:
        return "its block size is none that bitsandbytes knows"
    if state.absmax.numel() != -(-count // state.blocksize):
        return "it has another number of scales than blocks"
    if state.code.numel() != values:
        return "its table of values has another length"
    types = (str(state.absmax.dtype), str(state.code.dtype), isinstance(state.dtype, torch.dtype))
    return None if types == (f"torch.{kind}", "torch.float32", True) else "its scales are of another type"


def compute_in(model: nn.Module, dtype: torch.dtype, kept: Collection[str] = ()) -> None:
    """Makes a model compute in another dtype. What is quantized stays as it is.

    Args:
        kept: parts of the names of modules that compute in fp32 all the same.
    """
    import torch

    for name, module in model.named_modules():
        kind = torch.float32 if any(part in kept for part in name.split(".")) else dtype
        if is_quantized(module):
            module.compute_dtype = module.weight.quant_state.dtype = kind  # on CUDA it is dequantized in the latter
            own = [module.bias]
        else:
            tables = module._non_persistent_buffers_set  # of positions, which are computed with in fp32
            own = [*module.parameters(False), *(b for key, b in module.named_buffers("", False) if key not in tables)]
        for tensor in own:
            if tensor is not None and tensor.is_floating_point():
                tensor.data = tensor.data.to(kind)


def _refuse_other_method(config: object) -> None:
    """What is not 4 bits of bitsandbytes, by its name."""
    said = config if isinstance(config, dict) else {}
    four, eight = (said.get(key) is True for key in ("load_in_4bit", "load_in_8bit"))
    method = said.get("quant_method", "bitsandbytes" if four or eight else None)
    if four and not eight and method == "bitsandbytes":
        return
    name = method if isinstance(method, str) and MODULE.fullmatch(method) else "a method without a name"
    bits = " in 8 bits" if eight else ""
    raise ValueError(
        f"it is already quantized, by {name}{bits} (quantization_config in config.json), which is not opened here; "
        "use the original weights, or a 4-bit checkpoint of bitsandbytes"
    )


def _one_of(config: Mapping[str, Any], key: str, default: Any, allowed: Collection[Any]) -> Any:
    value = default if config.get(key) is None else config[key]
    if type(value) is not type(default) or value not in allowed:
        raise ValueError(f"{key} in its config.json is not one of {', '.join(map(_shown, allowed))}")
    return value


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
