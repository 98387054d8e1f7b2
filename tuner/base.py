"""Opens a base model, quantized, and says what it is. The one doorway to bitsandbytes.

On CPUs with AVX512-BF16, bitsandbytes repacks a 4-bit layer in place at the first forward pass in evaluation mode.
From then on the layer passes no gradient to what is below it, and dequantizing it returns garbage; nothing warns.
`open_base` switches that path off on every layer, so that an evaluation observes and changes nothing.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from inlay.adapters import Facts, Linear
from inlay.tuner.architecture import attention_of, auto_class, without_weights
from inlay.tuner.base_copies import copy_of
from inlay.tuner.model_files import ModelFiles
from inlay.tuner.problems import MachineError, Problem, RequestError, explained
from inlay.tuner.quantization import (
    Quantization,
    Stored,
    compute_dtype_of,
    compute_in,
    dtype_name,
    dtype_of,
    fault_of,
    is_quantized,
)
from inlay.tuner.weights import bytes_in_memory

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Kernels from the hub are code. transformers reads this once, at import; bitsandbytes asks the package `kernels`, if it
# is there, so it is imported without seeing it, before another library imports it.
os.environ["USE_HUB_KERNELS"] = "0"
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
SEQ2SEQ_WITHOUT_CONTEXT = ("t5", "mt5", "umt5", "longt5")


@dataclass(frozen=True)
class Base:
    """A loaded base model.

    Attributes:
        model: frozen, in evaluation mode.
        tokenizer: as the model's folder has it.
        facts: what adapter methods may ask.
        files: where it came from.
        sha256: over config, tokenizer and weight files.
        quantization: as loaded.
        compute_dtype: `fp32`, `bf16` or `fp16`.
        device: `cpu` or `cuda:0`.
        bytes: memory of all parameters and buffers, quantization state included.
        plain_bytes: memory of what `plain_weights` keeps beside them.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    facts: Facts
    files: ModelFiles
    sha256: str
    quantization: Quantization
    compute_dtype: str
    device: str
    bytes: int
    plain_bytes: int = 0


def read_config(files: ModelFiles) -> PreTrainedConfig:
    """The model's configuration object; code that the repository brings is not run.

    Raises:
        RequestError: the architecture is unknown to transformers, or its configuration is invalid.
    """
    from transformers import CONFIG_MAPPING

    content = files.config()
    model_type = str(content.pop("model_type"))
    if model_type not in CONFIG_MAPPING:
        raise RequestError(
            Problem(
                f"the architecture `{model_type}` of `{files.name}` is unknown to transformers",
                path="base.model",
                help="a repository's own code is never run; use a model whose architecture transformers knows",
            )
        )
    # Each architecture checks its own fields, with exceptions of every kind.
    with explained(f"config.json of `{files.name}` is invalid", Exception):
        return CONFIG_MAPPING[model_type].from_dict(content)


def read_tokenizer(files: ModelFiles) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        RequestError: it cannot be read, or names no end-of-text token.
    """
    from transformers import AutoTokenizer

    # The tokenizers library raises bare exceptions.
    with explained(f"the tokenizer of `{files.name}` cannot be read", Exception):
        tokenizer = AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False, local_files_only=True)
    if tokenizer.eos_token_id is None:
        raise RequestError(
            Problem(
                f"the tokenizer of `{files.name}` names no end-of-text token (eos_token)",
                path="base.model",
                help="an answer could never end; add eos_token to its tokenizer_config.json",
            )
        )
    return tokenizer


def read_facts(config: PreTrainedConfig, bits: int) -> Facts:
    """Builds the model on the meta device (no memory, no weights) and reads its shape.

    Raises:
        RequestError: the architecture is no causal or sequence-to-sequence language model, or has no attention.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    model = without_weights(config)
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    if not isinstance(heads, int):
        raise RequestError(
            Problem(
                f"`{config.model_type}` is no transformer with one number of attention heads",
                path="base.model",
                help="use a model that writes text by attention alone, such as a Llama, Qwen, GPT-2, Gemma or T5",
            )
        )
    head = model.get_output_embeddings()
    linears, norms = {}, {}
    for name, module in model.named_modules():
        if isinstance(module, Conv1D):
            linears[name] = Linear(module.nx, module.nf, bias=True)
        elif isinstance(module, torch.nn.Linear) and module is not head:
            linears[name] = Linear(module.in_features, module.out_features, module.bias is not None)
        elif (weights := [*module.parameters(recurse=False)]) and all(weight.ndim == 1 for weight in weights):
            norms[name] = sum(weight.numel() for weight in weights)
    seq2seq, relative = bool(config.is_encoder_decoder), config.model_type in SEQ2SEQ_WITHOUT_CONTEXT
    width = getattr(text, "head_dim", None) or getattr(text, "d_kv", None) or text.hidden_size // heads
    return Facts(
        model_type=config.model_type,
        kind="seq2seq" if seq2seq else "causal",
        hidden=text.hidden_size,
        layers=getattr(text, "num_decoder_layers", None) or text.num_hidden_layers,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=width,
        # None, too, where nothing in the architecture limits it (ALiBi).
        context=None if relative else getattr(text, "max_position_embeddings", None),
        linears=linears,
        norms=norms,
        modules=frozenset(name for name, _ in model.named_modules()),
        parameters=sum(p.numel() for p in model.parameters()),
        tied=bool(config.tie_word_embeddings),
        bits=bits,
    )


def on_gpu() -> bool:
    """Whether a model is opened on a GPU here."""
    import torch

    return torch.cuda.is_available()


def open_base(
    files: ModelFiles,
    quantization: Quantization,
    facts: Facts,
    tokenizer: PreTrainedTokenizerBase,
    *,
    attention: str = "sdpa",
    float_targets: Iterable[str] = (),
) -> Base:
    """Loads the weights, quantized, on the GPU where there is one.

    Args:
        quantization: of a checkpoint of 4-bit weights, what it holds.
        float_targets: names of linear layers that an adapter method needs as plain layers. They are quantized first and
            then hold the dequantized weights, so that the model computes the same function as with 4-bit layers.

    Raises:
        MachineError: bitsandbytes is missing or cannot work here, or memory does not suffice.
        RequestError: the files do not hold this architecture's weights.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import GenerationConfig

    unreadable = (ValueError, KeyError, OSError, ImportError, SafetensorError)
    config = read_config(files)
    device = "cuda:0" if on_gpu() else "cpu"
    dtype = compute_dtype_of(quantization, device)
    sha256 = files.sha256()
    copy_here = copy_of(files, sha256, quantization, dtype_name(dtype), device)
    read = (copy_here and copy_here.open()) or files
    arguments: dict[str, object] = {}
    if quantization.bits in (4, 8):
        import_bitsandbytes()
        settings = _bitsandbytes_config(quantization, read.stored, dtype)
        arguments = {"quantization_config": settings, "device_map": {"": device}}
        if read.stored:  # transformers then reads them from the configuration
            config.quantization_config = arguments.pop("quantization_config").to_dict()
    try:
        with explained(f"the weights of `{files.name}` cannot be loaded", *unreadable):
            model, info = auto_class(config).from_pretrained(
                read.folder,
                config=config,
                generation_config=GenerationConfig(),  # the folder's own is never read
                dtype=dtype,
                attn_implementation=attention_of(config, attention),
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **arguments,
            )
    except torch.OutOfMemoryError as error:
        raise MachineError(f"out of memory while loading `{files.name}`: {error}", help="use a smaller base") from error
    except RuntimeError as error:
        if read.stored is None:
            raise
        message = f"the weights of `{files.name}` cannot be loaded: what says how they are quantized is damaged"
        raise RequestError(Problem(message, path="base.model", help="fetch the checkpoint again")) from error
    _refuse_random_weights(files, info)
    if read.stored:
        _check_stored(files, model, dtype)
    elif copy_here:
        copy_here.keep(model)
    model = model.to(device) if quantization.bits > 8 else model
    _switch_off_repacking(model)
    dequantize_targets(model, float_targets, dtype)
    model.requires_grad_(False).eval()
    return Base(
        model=model,
        tokenizer=tokenizer,
        facts=facts,
        files=files,
        sha256=sha256,
        quantization=quantization,
        compute_dtype=dtype_name(dtype),
        device=device,
        bytes=bytes_in_memory(model),
    )


def dequantize(layer: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """The weight of a quantized linear layer, shape (out, in); in fp32, code times scale to the last bit.

    Raises:
        TypeError: the layer is not a bitsandbytes layer.
    """
    import bitsandbytes as bnb

    if isinstance(layer, bnb.nn.Linear4bit):
        state = copy.copy(layer.weight.quant_state)
        state.dtype = dtype
        return bnb.functional.dequantize_4bit(layer.weight.data, state)
    if isinstance(layer, bnb.nn.Linear8bitLt):
        state = layer.weight
        scale = state.SCB if state.SCB is not None else layer.state.SCB
        return bnb.functional.int8_vectorwise_dequant(state.data, scale).to(dtype)
    raise TypeError(f"{type(layer).__name__} is not a quantized layer")


def import_bitsandbytes() -> None:
    """Imports bitsandbytes without letting it fetch a kernel from the hub, which is code, and without a compiler for
    functions that nothing here calls, which takes longer to import than all the rest."""
    if "bitsandbytes" in sys.modules:
        return
    import torch

    compiling, torch.compile = torch.compile, lambda function=None, **_: function or (lambda given: given)
    absent = "kernels" not in sys.modules
    if absent:
        sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MachineError(
            f"4-bit and 8-bit bases need bitsandbytes, which cannot be imported ({error})",
            help="pip install 'bitsandbytes>=0.50', or set base.quantization.bits: 16",
        ) from error
    finally:
        torch.compile = compiling
        if absent:
            del sys.modules["kernels"]


def _bitsandbytes_config(quantization: Quantization, stored: Stored | None, dtype: torch.dtype):
    from transformers import BitsAndBytesConfig

    if quantization.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.quant_type,
        bnb_4bit_use_double_quant=quantization.double_quant,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=stored.storage if stored else None,
        llm_int8_skip_modules=list(stored.skipped) if stored and stored.skipped is not None else None,
    )


def _refuse_random_weights(files: ModelFiles, info: Mapping[str, Any]) -> None:
    """transformers fills a missing weight with random numbers and warns; here it is an error."""
    wrong = sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])})
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise RequestError(
            Problem(
                f"the weight files of `{files.name}` lack `{wrong[0]}`{more}, or its shape is not config.json's",
                path="base.model",
                help="the folder mixes two models, or is incomplete: fetch it again",
            )
        )


def _check_stored(files: ModelFiles, model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Refuses layers that native code must not see, and makes the others what they are when quantized here."""
    for name, layer in model.named_modules():
        if is_quantized(layer) and (fault := fault_of(layer)):
            message = f"the layer `{name}` of `{files.name}` cannot be used: {fault}"
            raise RequestError(Problem(message, path="base.model", help="fetch the checkpoint again, or make it anew"))
    # What is plain comes in the file's dtype, and so does the output of what is not.
    compute_in(model, dtype, kept=model._get_dtype_plan(dtype))
    # Some quantize the head too; as a plain layer it computes the same, and is what it is on any other base.
    head = model.get_output_embeddings()
    dequantize_targets(model, [name for name, layer in model.named_modules() if layer is head], dtype)


def _switch_off_repacking(model: nn.Module) -> None:
    if "bitsandbytes" not in sys.modules:
        return
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def dequantize_targets(model: PreTrainedModel, names: Iterable[str], dtype: torch.dtype) -> Callable[[], None]:
    """Puts plain linear layers that hold the dequantized weights in place of the quantized ones called `names`.

    Given the dtype that the model computes in, it still computes the same function, to the bit.

    Returns:
        What puts the quantized layers back, once whatever was attached to the plain ones is off again.
    """
    import torch

    quantized, layers = getattr(model, "is_quantized", False), {}
    for name in names:
        layer = model.get_submodule(name)
        if not is_quantized(layer):
            continue
        weight = dequantize(layer, dtype)
        plain = torch.nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        plain.bias = layer.bias
        model.set_submodule(name, plain.eval(), strict=True)
        layers[name] = layer
    if not any(map(is_quantized, model.modules())):
        model.is_quantized = False  # else Trainer refuses to train it

    def put_back() -> None:
        for name, layer in layers.items():
            model.set_submodule(name, layer, strict=True)
        model.is_quantized = quantized

    return put_back


@contextlib.contextmanager
def plain_layers(base: Base, names: Iterable[str]) -> Iterator[int]:
    """Inside, the layers called `names` hold their dequantized weights; yields the bytes that this takes more."""
    put_back = dequantize_targets(base.model, names, dtype_of(base.compute_dtype))
    try:
        yield max(0, bytes_in_memory(base.model) - base.bytes)
    finally:
        put_back()


if find_spec("kernels") is not None and find_spec("bitsandbytes") is not None:
    with contextlib.suppress(MachineError):  # said when it is needed
        import_bitsandbytes()
