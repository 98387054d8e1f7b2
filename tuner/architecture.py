"""Which class of transformers a configuration asks for: the model without its weights, and how it may attend."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from inlay.tuner.problems import MachineError, Problem, RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def auto_class(config: PreTrainedConfig):
    """The auto class of causal or of sequence-to-sequence language models.

    Raises:
        RequestError: the architecture is neither.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    if config.is_encoder_decoder and config.model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return AutoModelForSeq2SeqLM
    encoder = config.model_type.replace("_", "-") in ("bert", "roberta", "xlm-roberta", "electra", "deberta-v2")
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not encoder:
        return AutoModelForCausalLM
    raise RequestError(
        Problem(
            f"`{config.model_type}` is neither a causal nor a sequence-to-sequence language model",
            path="base.model",
            help="use a model that writes text, such as a Llama, Qwen, GPT-2, GPT-NeoX, Gemma, Mistral or T5",
        )
    )


def without_weights(config: PreTrainedConfig, attention: str = "sdpa") -> PreTrainedModel:
    """The model on the meta device: shapes in fp32, no memory."""
    import torch

    with torch.device("meta"):
        kind, kernel = auto_class(config), attention_of(config, attention)
        return kind.from_config(config, dtype=torch.float32, attn_implementation=kernel)


def attention_of(config: PreTrainedConfig, asked: str) -> str:
    """`sdpa` falls back to `eager`, which computes the same, on the few architectures that lack it (GPT-Neo)."""
    if asked == "flash_attention_2" and find_spec("flash_attn") is None:
        raise MachineError("base.attention: flash_attention_2 needs flash-attn", help="pip install flash-attn")
    supported = auto_class(config)._model_mapping[type(config)]._supports_sdpa
    return "eager" if asked == "sdpa" and not supported else asked
