"""The tensors of a model folder on their way into a GGUF file: planned from headers, then converted one by one.

Memory holds one tensor as it is read and as it is written, never the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from inlay.tuner.problems import AnswerNo, RequestError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter, TensorNameMap
    from transformers import PreTrainedConfig

Kind = Literal["f32", "f16", "bf16", "q8_0"]

# Tensors of old checkpoints that hold no weights.
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
# What GPT-2 stores as [inputs, outputs].
CONV1D = (".attn.c_attn.weight", ".attn.c_proj.weight", ".mlp.c_fc.weight", ".mlp.c_proj.weight")
FREQUENCIES = "rope_freqs.weight"


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file.

    Attributes:
        name: in the file.
        kind: `F32`, `F16`, `BF16` or `Q8_0`.
        shape: in the file, outermost first.
        shard, source: the safetensors file and the name in it.
        transposed: whether it is turned.
        rotary_heads: whose rows are put in the order of neighbouring pairs; 0 for none.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    shard: Path
    source: str
    transposed: bool = False
    rotary_heads: int = 0


def plan(folder: Path, config: PreTrainedConfig, kind: Kind) -> list[Tensor]:
    """Every tensor that is copied, in the folder's order. Headers alone are read.

    Raises:
        RequestError: a tensor is not of floats, or has no place in the file, or is missing.
    """
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(arch for arch in MODEL_ARCH if MODEL_ARCH_NAMES[arch] == config.model_type)
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    heads = {}
    if config.model_type == "llama":
        heads = {".attn_q.": config.num_attention_heads, ".attn_k.": config.num_key_value_heads}
    tensors = []
    for shard, source, shape, dtype in _headers(folder):
        if source.endswith(BUFFERS) or (source == "lm_head.weight" and config.tie_word_embeddings):
            continue
        name = _name(names, source)
        if name is None:
            raise RequestError(f"GGUF has no place for the tensor `{source}` of this model")
        if dtype not in ("F32", "F16", "BF16"):
            raise RequestError(f"the tensor `{source}` is stored as {dtype}; GGUF is written from a merged float model")
        transposed = config.model_type == "gpt2" and source.endswith(CONV1D)
        turned = shape[::-1] if transposed else shape
        rotary = next((count for part, count in heads.items() if part in name), 0)
        tensors.append(Tensor(name, _kind_of(name, turned, kind), turned, shard, source, transposed, rotary))
    missing = _expected(config, names) - {tensor.name for tensor in tensors}
    if missing:
        raise RequestError(f"the folder has no weights for `{min(missing)}`")
    return tensors


def frequency_factors(config: PreTrainedConfig) -> np.ndarray | None:
    """By what Llama 3's stretched positions divide each frequency, float32 [head size / 2]; None without them."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if config.model_type == "gpt2" or config.rope_parameters["rope_type"] != "llama3":
        return None
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    size = 2 * len(stretched)
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    return (plain / stretched.double()).float().numpy()


def write_tensors(writer: GGUFWriter, tensors: Sequence[Tensor], frequencies: np.ndarray | None) -> None:
    """Writes the header, what the writer was told, and the tensors.

    Raises:
        AnswerNo: a weight is beyond the range of float16.
    """
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if frequencies is not None:
        writer.add_tensor_info(FREQUENCIES, frequencies.shape, frequencies.dtype, frequencies.nbytes)
    for tensor in tensors:
        kind = GGMLQuantizationType[tensor.kind]
        block, size = GGML_QUANT_SIZES[kind]
        count = int(np.prod(tensor.shape)) // block * size
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), count, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if frequencies is not None:
        writer.write_tensor_data(frequencies)
    for tensor in tensors:
        writer.write_tensor_data(_converted(tensor))


def _headers(folder: Path) -> Iterator[tuple[Path, str, tuple[int, ...], str]]:
    """(shard, name, shape, dtype) of every tensor of the folder."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    shards = ["model.safetensors"]
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    for shard in shards:
        with safe_open(folder / shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is not a mapping)
                part = file.get_slice(name)
                yield folder / shard, name, tuple(part.get_shape()), part.get_dtype()


def _name(names: TensorNameMap, source: str) -> str | None:
    return names.get_name(source, try_suffixes=(".weight", ".bias"))


def _expected(config: PreTrainedConfig, names: TensorNameMap) -> set[str]:
    """The names that a model of this config has in a file."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        sources = set(AutoModelForCausalLM.from_config(config).state_dict())
    if config.tie_word_embeddings:
        sources.discard("lm_head.weight")
    return {name for name in (_name(names, source) for source in sources) if name}


def _kind_of(name: str, shape: Sequence[int], kind: Kind) -> str:
    """Norms, biases and positions are float32; rows that blocks do not divide are float16."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) == 1 or name == "position_embd.weight":
        return "F32"
    block, _ = GGML_QUANT_SIZES[GGMLQuantizationType[kind.upper()]]
    return "F16" if shape[-1] % block else kind.upper()


def _converted(tensor: Tensor) -> np.ndarray:
    """The tensor as the file holds it: float32, float16, or bytes."""
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize
    from safetensors import safe_open

    # Opened for each tensor, so that the pages of those before do not stay in memory.
    with safe_open(tensor.shard, framework="pt") as file:
        weights = file.get_tensor(tensor.source).float().numpy()
    if tensor.transposed:
        weights = weights.T
    if tensor.rotary_heads:
        weights = _by_pairs(weights, tensor.rotary_heads)
    with np.errstate(over="ignore"):  # it is told in words
        data = quantize(np.ascontiguousarray(weights), GGMLQuantizationType[tensor.kind])
    if tensor.kind == "F16" and not np.isfinite(data).all():
        raise AnswerNo(
            f"`{tensor.source}` holds weights beyond the range of float16", help="write f32, bf16 or q8_0 instead"
        )
    return data


def _by_pairs(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from (x1.. xn, y1.. yn), whose halves rotate together, to (x1, y1.. xn, yn)."""
    rest = weights.shape[1:]
    return weights.reshape(heads, 2, -1, *rest).swapaxes(1, 2).reshape(weights.shape)
