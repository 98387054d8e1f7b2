"""Bottleneck adapters: a small two-layer network, down to a few dimensions and up again, in every transformer block.

    adapter(x) = W_up f(W_down x + b_down) + b_up       W_down: b x d, W_up: d x b, b: bottleneck_size, d: hidden

    houlsby    y + s * adapter(y), y the output projection of each attention and of the feed-forward network;
               in an encoder-decoder base that is encoder and decoder, cross-attention included
    pfeiffer   the same after the feed-forward network only
    parallel   y + s * adapter(x), x the input of the feed-forward network (after its normalization) and y its output

All three stand before the residual sum. Where the base normalizes a sublayer's output (Gemma), they stand before that
normalization too; where it has dropout there (GPT-2), before the dropout. W_up and b_up start at zero, so the first
forward pass is the base's. The activation makes it impossible to write a trained adapter into the base's weights.
Source: Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", arXiv:1902.00751, section 2.1 and figure 2
(its near-identity start is made exact here); Pfeiffer et al. 2021, "AdapterFusion", arXiv:2005.00247, section 3.2.1;
He et al. 2022, "Towards a Unified View of Parameter-Efficient Transfer Learning", arXiv:2110.04366, table 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from inlay.adapters import Adapted, Facts, Linear, Method, Training, _targets
from inlay.adapters import Options as BaseOptions

if TYPE_CHECKING:
    from torch import nn

    from inlay.adapters.bottleneck.layer import BottleneckConfig

Placement = Literal["houlsby", "pfeiffer", "parallel"]

# How the architectures of transformers name the last layer of an attention and of a feed-forward network.
ATTENTION_OUTPUTS = (
    "self_attn.o_proj",  # Llama, Mistral, Qwen, Gemma, Phi-3, OLMo, StarCoder2, GLM, Cohere, ...
    "self_attn.out_proj",  # OPT, BART, Pegasus, XGLM, BioGPT
    "encoder_attn.out_proj",  # BART, Pegasus: cross-attention
    "self_attn.dense",  # Phi
    "attn.c_proj",  # GPT-2, GPT-BigCode
    "attn.out_proj",  # GPT-J, CodeGen, MPT
    "attn.attention.out_proj",  # GPT-Neo
    "attention.dense",  # GPT-NeoX, Pythia
    "self_attention.dense",  # Falcon, BLOOM
    "SelfAttention.o",  # T5
    "EncDecAttention.o",  # T5: cross-attention
)
FEED_FORWARD_OUTPUTS = (
    "mlp.down_proj",  # Llama and its many relatives
    "mlp.c_proj",  # GPT-2, GPT-Neo, StarCoder2
    "mlp.dense_4h_to_h",  # GPT-NeoX, Falcon, BLOOM
    "mlp.fc_out",  # GPT-J, CodeGen
    "ffn.down_proj",  # MPT
    "DenseReluDense.wo",  # T5
    "fc2",  # OPT, BART, Pegasus (in the block itself); Phi (in mlp)
)


def sites(placement: Placement, outputs: Mapping[str, int], hidden: int) -> tuple[str, ...]:
    """The full names of the modules where adapters go, in the model's order.

    Every block must show exactly one feed-forward network and at least one attention that end in a linear layer of a
    known name and of the residual stream's width; an architecture that is half understood is not adapted.

    Args:
        outputs: the number of outputs of each linear layer, by full name.
        hidden: width of the residual stream.

    Raises:
        LookupError: the architecture's blocks are not understood; the message says what to do.
    """
    wide = [name for name, width in outputs.items() if width == hidden and _block(name)]
    attentions = _targets.matching(ATTENTION_OUTPUTS, wide)
    networks = _targets.matching(FEED_FORWARD_OUTPUTS, wide)
    blocks = dict.fromkeys(block for name in outputs if (block := _block(name)))
    for block in blocks:
        found = [name for name in networks if _block(name) == block]
        if len(found) != 1 or not any(_block(name) == block for name in attentions):
            raise LookupError(
                f"block `{block}` does not end its attention and its feed-forward network as known architectures do; "
                "name the modules to adapt in target_modules"
            )
    if not blocks:
        raise LookupError("no transformer blocks were found; name the modules to adapt in target_modules")
    if placement == "pfeiffer":
        return networks
    if placement == "houlsby":
        ends = {*attentions, *networks}
        return tuple(name for name in wide if name in ends)
    parents = tuple(name.rpartition(".")[0] for name in networks)
    if not blocks.keys().isdisjoint(parents):
        raise LookupError(
            f"the feed-forward network of block `{parents[0]}` is no module of its own, so nothing can run parallel to "
            "it; use placement: pfeiffer or houlsby"
        )
    return parents


def _block(name: str) -> str:
    """The block that a module is in: its name up to the first number; empty outside of blocks."""
    parts = name.split(".")
    return next((".".join(parts[: i + 1]) for i, part in enumerate(parts[:-1]) if part.isdigit()), "")


class Bottleneck(Method):
    """A small non-linear network in every block; a PEFT method of this package's own."""

    title: ClassVar[str] = "bottleneck adapter"
    paper: ClassVar[str] = "Houlsby et al. 2019, arXiv:1902.00751"
    place: ClassVar[str] = "attention, feed-forward"
    learning_rate: ClassVar[float] = 1e-3
    peft_type: ClassVar[str] = "BOTTLENECK"
    size: ClassVar[str] = "bottleneck_size"
    sizes: ClassVar[Sequence[int]] = range(1, 65537)
    saved: ClassVar[tuple[str, ...]] = ("placement", "bottleneck_size", "activation", "scaling", "target_modules")
    fresh: ClassVar[tuple[str, ...]] = ("init_std",)
    mergeable: ClassVar[bool] = False

    class Options(BaseOptions):
        """Options of bottleneck adapters.

        He et al. choose a scaling of 4 for parallel adapters by trial; with an adaptive optimizer it mostly multiplies
        the learning rate, so it is 1 here unless asked for.
        """

        placement: Placement = Field(
            "houlsby", description="after attention and feed-forward, after feed-forward only, or beside feed-forward"
        )
        bottleneck_size: int = Field(
            64, ge=1, le=65536, description="dimensions between the two layers: hidden size / reduction factor"
        )
        activation: Literal["relu", "gelu", "silu", "tanh"] = Field("relu", description="f, between the two layers")
        scaling: float = Field(1.0, gt=0, description="s, the factor on what the adapter adds")
        dropout: float = Field(0.0, ge=0, lt=1, description="dropout between the two layers while training")
        init_std: float = Field(0.01, gt=0, description="standard deviation of W_down at the start")
        target_modules: tuple[str, ...] | None = Field(
            None,
            min_length=1,
            description="instead of the placement's own: names of linear layers; for parallel, of modules that map the "
            "hidden states to a change of them",
        )

    options: Options

    def targets(self, facts: Facts) -> tuple[str, ...]:
        if self.options.target_modules is not None:
            return _targets.matching(self.options.target_modules, self._candidates(facts))
        outputs = {name: linear.out_features for name, linear in facts.linears.items()}
        return sites(self.options.placement, outputs, facts.hidden)

    def refusal(self, facts: Facts, training: Training) -> str | None:
        if reason := super().refusal(facts, training):
            return reason
        if self.options.target_modules is not None:
            return _targets.refusal(self.options.target_modules, self._candidates(facts), facts)
        try:
            self.targets(facts)
        except LookupError as error:
            return f"{self.title} on a {facts.model_type} base: {error.args[0]}"
        return None

    def trainable(self, facts: Facts) -> int:
        residual = Linear(facts.hidden, facts.hidden)
        size, total = self.options.bottleneck_size, 0
        for name in self.targets(facts):
            layer = facts.linears.get(name, residual)
            inputs = layer.in_features if self.options.placement == "parallel" else layer.out_features
            total += (inputs + 1) * size + (size + 1) * layer.out_features
        return total

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        from inlay.adapters import _peft

        return _peft.attach(self._config(facts), model, seed=seed)

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        from inlay.adapters import _peft

        return _peft.load(self._config(facts), folder, model)

    def _candidates(self, facts: Facts) -> tuple[str, ...]:
        return tuple(sorted(facts.modules)) if self.options.placement == "parallel" else tuple(facts.linears)

    def _config(self, facts: Facts) -> BottleneckConfig:
        from inlay.adapters._peft import TASK_TYPES
        from inlay.adapters.bottleneck.layer import BottleneckConfig

        return BottleneckConfig(
            task_type=TASK_TYPES[facts.kind],
            target_modules=list(self.targets(facts)),
            **self.options.model_dump(exclude={"target_modules"}),
        )
