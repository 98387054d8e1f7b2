"""Prefix tuning: trained keys and values in front of every attention layer's own; the base stays as it is.

    attention(Q, [P_K; K], [P_V; V])      P_K, P_V: virtual tokens x key/value heads x head size, one pair a layer

In an encoder-decoder base the prefix stands before the decoder's self-attention; a layer with a sliding window sees it
only from within that window. With `prefix_projection` the prefix is the output of a two-layer network while it trains,
as the paper does for stability: rows E (virtual tokens x d) give tanh(E W1 + b1) W2 + b2. Only its output is saved: a
reloaded adapter is a plain prefix, and trains on as one.

The start matters: keys and values drawn at random, or zeros, take a large share of every attention from the text and
wreck a pretrained model, which few steps cannot repair. So the prefix starts as the base's own activations on a short
document of `num_virtual_tokens` tokens: random ones between two end-of-text tokens, after which a text reads as a new
document. (The paper, section 7.4, finds activations of words much better than random values; which words they are
matters little.) With a projection, W2 and b2 are solved for so that the output is exactly that.
Source: Li & Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", arXiv:2101.00190.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from inlay.adapters import Adapted, Facts
from inlay.adapters._virtual import Virtual

if TYPE_CHECKING:
    from peft import PrefixTuningConfig
    from torch import Tensor, nn


class Prefix(Virtual):
    """Trained keys and values before each layer's own; not mergeable, not under activation checkpointing."""

    title: ClassVar[str] = "prefix tuning"
    paper: ClassVar[str] = "Li & Liang 2021, arXiv:2101.00190"
    place: ClassVar[str] = "every attention"
    learning_rate: ClassVar[float] = 1e-2
    peft_type: ClassVar[str] = "PREFIX_TUNING"
    fresh: ClassVar[tuple[str, ...]] = ("prefix_projection", "encoder_hidden_size")
    prepends: ClassVar[Literal["nothing", "tokens", "keys"]] = "keys"
    checkpointing: ClassVar[bool] = False  # a filled cache and recomputed layers contradict each other

    class Options(Virtual.Options):
        """Options of prefix tuning."""

        prefix_projection: bool = Field(
            False,
            description="train a network that computes the prefix; wants a learning rate about ten times smaller",
        )
        encoder_hidden_size: int | None = Field(
            None, ge=1, le=65536, description="width of that network; the base's own where it is not given"
        )

        @model_validator(mode="after")
        def _projection_has_a_width(self) -> Self:
            if self.encoder_hidden_size is not None and not self.prefix_projection:
                raise ValueError("encoder_hidden_size has no effect without prefix_projection: true")
            return self

    options: Options

    def trainable(self, facts: Facts) -> int:
        width = facts.kv_heads * facts.head_dim
        tokens, outputs = self.options.num_virtual_tokens, 2 * facts.layers * width
        if not self.options.prefix_projection:
            return tokens * outputs
        hidden = self.options.encoder_hidden_size or facts.hidden
        return tokens * width + (width + 1) * hidden + (hidden + 1) * outputs

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        from inlay.adapters import _peft

        prefix = _activations(model, facts, self.options.num_virtual_tokens, seed)
        adapted = _peft.attach(self._config(facts, projection=self.options.prefix_projection), model, seed=seed)
        _start_at(adapted.model.prompt_encoder["default"], prefix)
        return adapted

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        from inlay.adapters import _peft

        return _peft.load(self._config(facts, projection=False), folder, model)

    def _config(self, facts: Facts, *, projection: bool) -> PrefixTuningConfig:
        from peft import PrefixTuningConfig

        from inlay.adapters._peft import TASK_TYPES

        return PrefixTuningConfig(
            task_type=TASK_TYPES[facts.kind],
            num_virtual_tokens=self.options.num_virtual_tokens,
            prefix_projection=projection,
            encoder_hidden_size=(self.options.encoder_hidden_size or facts.hidden) if projection else None,
            token_dim=facts.kv_heads * facts.head_dim,
            num_attention_heads=facts.kv_heads,
            num_layers=facts.layers,
            num_transformer_submodules=2 if facts.kind == "seq2seq" else 1,
        )


def _activations(model: nn.Module, facts: Facts, tokens: int, seed: int) -> Tensor:
    """The base's keys and values on a document of random tokens between two end-of-text tokens.

    Returns:
        fp32, (tokens, layers * 2 * key/value heads * head size), in PEFT's order: layer, key or value, head.
    """
    import torch
    from transformers import DynamicCache, EncoderDecoderCache

    config = model.config.get_text_config()
    document = torch.randint(config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(seed))
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    if end is not None:
        document[0, 0] = document[0, -1] = end
    document = document.to(model.device)
    cache = DynamicCache()  # without a config: one with a sliding window would drop the first tokens
    inputs = {"input_ids": document, "past_key_values": cache}
    if facts.kind == "seq2seq":
        inputs |= {"past_key_values": EncoderDecoderCache(cache, DynamicCache()), "decoder_input_ids": document}
    training = model.training
    with torch.no_grad():
        model.eval()(**inputs, use_cache=True)
    model.train(training)
    pairs = torch.stack([part[0] for layer in cache.layers for part in (layer.keys, layer.values)])
    return pairs.permute(2, 0, 1, 3).reshape(tokens, -1).float()


def _start_at(encoder: nn.Module, prefix: Tensor) -> None:
    """Sets PEFT's prefix encoder so that its output is `prefix`; with a projection narrower than the prefix is long,
    as near to it as least squares come."""
    import torch

    with torch.no_grad():
        if not encoder.prefix_projection:
            encoder.embedding.weight.copy_(prefix)
            return
        last = encoder.transform[-1]
        last.bias.copy_(prefix.mean(0))
        inner = encoder.transform[:-1](encoder.embedding.weight).double()
        weight = torch.linalg.pinv(inner) @ (prefix - last.bias).double()
        last.weight.copy_(weight.T)
