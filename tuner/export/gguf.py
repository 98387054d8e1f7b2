"""A merged model folder as one GGUF file: what llama.cpp, Ollama and LM Studio load.

    general.architecture      llama | qwen2 | qwen3 | gpt2, and under its name the sizes
    tokenizer.*               see `vocabulary`
    token_embd.weight         [vocabulary, hidden]
    blk.0.attn_q.weight       [heads * head size, hidden], and so on, a layer after the other
    output.weight             left out where it is the embedding

Against the folder three things change. Llama's queries and keys are stored for a rotation of neighbouring pairs, not of
the two halves of a head; GPT-2's projections are transposed; and the frequencies of Llama 3's stretched positions are a
tensor of their own. Norms, biases and position embeddings stay in float32 whatever the kind.

Source: the GGUF specification (ggml, docs/gguf.md) and the names of the `gguf` package.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.tuner.data.rendering import Renderer
from inlay.tuner.export.gguf_tensors import Kind, frequency_factors, plan, write_tensors
from inlay.tuner.export.vocabulary import Vocabulary, read_vocabulary
from inlay.tuner.problems import RequestError

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

# model_type -> settings that readers of GGUF take for granted, and what they may be.
ASSUMED: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "llama": {"hidden_act": ("silu",)},
    "qwen2": {"hidden_act": ("silu",), "use_sliding_window": (False,)},
    "qwen3": {"hidden_act": ("silu",), "use_sliding_window": (False,), "attention_bias": (False,)},
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
}
# model_type -> kinds of rotary positions; Llama 3's need a tensor that llama.cpp reads for Llama alone.
ROPES = {"llama": ("default", "linear", "llama3"), "qwen2": ("default", "linear"), "qwen3": ("default", "linear")}
FILE_TYPES: Mapping[Kind, str] = {
    "f32": "ALL_F32",
    "f16": "MOSTLY_F16",
    "bf16": "MOSTLY_BF16",
    "q8_0": "MOSTLY_Q8_0",
}


@dataclass(frozen=True)
class Written:
    """A GGUF file.

    Attributes:
        file: where it is.
        bytes: its size.
        tensors: how many it holds.
        wider: the tensors that are float16 in a `q8_0` file, since their rows are no multiple of 32.
        notes: texts that a reader of the file tokenizes otherwise than the folder's tokenizer does, in words.
    """

    file: Path
    bytes: int
    tensors: int
    wider: tuple[str, ...]
    notes: tuple[str, ...]


def refusal(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why this model cannot be a GGUF file, or None. Reads no weights, so that an export can ask before it merges.

    Raises:
        ImportError: the `gguf` library is missing.
    """
    importlib.import_module("gguf")
    told, kind = config.to_dict(), config.model_type
    if kind not in ASSUMED:
        return f"its architecture is {kind}, and inlay writes GGUF for {', '.join(ASSUMED)}"
    for name, allowed in ASSUMED[kind].items():
        value = told.get(name)
        if value is not None and value not in allowed:
            return f"its config says `{name}: {value}`, which GGUF cannot hold for {kind}"
    if kind != "gpt2":
        rope = config.rope_parameters
        if rope["rope_type"] not in ROPES[kind]:
            return f"its positions are `{rope['rope_type']}`, and GGUF for {kind} takes {', '.join(ROPES[kind])}"
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            return f"only a part of each head is rotated, which GGUF cannot hold for {kind}"
        if kind == "qwen2" and _head_size(config) * config.num_attention_heads != config.hidden_size:
            return "its heads together are not as wide as its hidden size, which GGUF cannot hold for qwen2"
    try:
        read_vocabulary(tokenizer, config.vocab_size)
    except RequestError as error:
        return error.problems[0].message
    return None


def write_gguf(folder: Path, file: Path, kind: Kind, *, template: str | None) -> Written:
    """Writes a merged model folder as one GGUF file, a tensor at a time.

    Args:
        folder: config.json, safetensors (one file, or shards with their index) and a tokenizer.
        file: what to write.
        kind: of the matrices; `q8_0` rounds them in blocks of 32 to 8 bits each and one float16 scale.
        template: the chat template (Jinja) that the file is to carry; None for none.

    Raises:
        RequestError: the model cannot be a GGUF file; nothing was written.
        AnswerNo: a weight is beyond the range of float16; nothing is left.
        ImportError: the `gguf` library is missing.
    """
    from gguf import GGUFWriter
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    reason = refusal(config, tokenizer)
    if reason:
        raise RequestError(f"this model cannot be a GGUF file: {reason}", help="export it as `merged` instead")
    tensors, frequencies = plan(folder, config, kind), frequency_factors(config)
    vocabulary = read_vocabulary(tokenizer, config.vocab_size)
    writer = GGUFWriter(file, config.model_type)
    _describe_model(writer, config, kind)
    _describe_tokenizer(writer, vocabulary, _end_of_turn(tokenizer), template)
    try:
        write_tensors(writer, tensors, frequencies)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    finally:
        writer.close()
    wider = tuple(tensor.name for tensor in tensors if kind == "q8_0" and tensor.kind == "F16")
    count = len(tensors) + (frequencies is not None)
    return Written(file, file.stat().st_size, count, wider, vocabulary.notes)


def _head_size(config: PreTrainedConfig) -> int:
    """Absent or null where the heads share the hidden size."""
    return config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends a turn, where it is not the one that ends a text."""
    stops = Renderer(tokenizer, "causal").stop_ids
    return next((token for token in stops if token != tokenizer.eos_token_id), None)


def _describe_model(writer: GGUFWriter, config: PreTrainedConfig, kind: Kind) -> None:
    """The sizes, under the architecture's name."""
    from gguf import GGML_QUANT_VERSION, LlamaFileType, RopeScalingType

    writer.add_type("model")
    writer.add_file_type(LlamaFileType[FILE_TYPES[kind]])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_rope_dimension_count(_head_size(config))
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _describe_tokenizer(
    writer: GGUFWriter, vocabulary: Vocabulary, end_of_turn: int | None, template: str | None
) -> None:
    """The tokenizer. No text gets an end token: where a prompt ends, an answer follows."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "llama":
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.add_space)
    else:
        writer.add_token_merges(vocabulary.merges)
    adders = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "unk": writer.add_unk_token_id,
        "pad": writer.add_pad_token_id,
    }
    for part, token in vocabulary.ids.items():
        adders[part](token)
    if end_of_turn is not None:
        writer.add_eot_token_id(end_of_turn)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(False)
    if template is not None:
        writer.add_chat_template(template)
