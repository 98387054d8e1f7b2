"""LLaMA-Adapter: trained prompts that the upper attention layers read beside the text, each through a gate.

    attention(x) + W_O (g * softmax(Q K_P^T / sqrt(d)) V_P)      K_P = W_K P, V_P = W_V P, P: adapter_len x hidden

P passes through the layer's own frozen projections, and its softmax is apart from the text's. The gate g, one number a
layer, starts at zero, so the first forward pass is the base's; the prompts take no positions of the context. Queries
carry positions and prompt keys none, as in the paper's code.
Source: Zhang et al. 2023, "LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention",
arXiv:2303.16199, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from inlay.adapters import Adapted, Facts, Kind, Method, Training
from inlay.adapters import Options as BaseOptions

if TYPE_CHECKING:
    from peft import AdaptionPromptConfig
    from torch import nn

ATTENTION = "self_attn"


class LlamaAdapter(Method):
    """Gated prompts in the attention of Llama and Mistral; not mergeable."""

    title: ClassVar[str] = "LLaMA-Adapter"
    paper: ClassVar[str] = "Zhang et al. 2023, arXiv:2303.16199"
    place: ClassVar[str] = "every attention"
    learning_rate: ClassVar[float] = 9e-3
    kinds: ClassVar[tuple[Kind, ...]] = ("causal",)
    model_types: ClassVar[tuple[str, ...]] = ("llama", "mistral")  # whose attention PEFT's layer computes a second time
    peft_type: ClassVar[str] = "ADAPTION_PROMPT"
    size: ClassVar[str] = "adapter_len"
    sizes: ClassVar[Sequence[int]] = range(1, 4097)
    saved: ClassVar[tuple[str, ...]] = ("adapter_len", "adapter_layers")
    mergeable: ClassVar[bool] = False

    class Options(BaseOptions):
        """Options of LLaMA-Adapter."""

        adapter_len: int = Field(10, ge=1, le=4096, description="prompts in a layer")
        adapter_layers: int | None = Field(
            None, ge=1, le=4096, description="so many layers, the upper ones; all by default"
        )

    options: Options

    def targets(self, facts: Facts) -> tuple[str, ...]:
        """The attention modules."""
        queries = f".{ATTENTION}.q_proj"
        found = [name.removesuffix(".q_proj") for name in facts.linears if name.endswith(queries)]
        return tuple(found[-(self.options.adapter_layers or len(found)) :])

    def refusal(self, facts: Facts, training: Training) -> str | None:
        if reason := super().refusal(facts, training):
            return reason
        if facts.bits == 16:
            return f"PEFT multiplies the fp32 prompts of {self.title} with 16-bit weights, which fails; use 4, 8 or 32"
        if self.options.adapter_layers is not None and self.options.adapter_layers > facts.layers:
            return f"adapter_layers is {self.options.adapter_layers}, and this base has {facts.layers} layers"
        output = facts.linears[f"{self.targets(facts)[0]}.o_proj"]
        if output.in_features != facts.hidden or output.bias:
            return (
                f"PEFT computes {self.title} right where the heads are together as wide as the base and the attention "
                f"has no bias; here they have {output.in_features} of {facts.hidden} dimensions and "
                f"{'a' if output.bias else 'no'} bias"
            )
        return None

    def trainable(self, facts: Facts) -> int:
        return len(self.targets(facts)) * (self.options.adapter_len * facts.hidden + 1)

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        from inlay.adapters._prompted import Prompted

        return Prompted.attach(self._config(facts), model, seed=seed)

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        from inlay.adapters._prompted import Prompted

        return Prompted.load(self._config(facts), folder, model)

    def _config(self, facts: Facts) -> AdaptionPromptConfig:
        from peft import AdaptionPromptConfig

        from inlay.adapters._peft import TASK_TYPES

        return AdaptionPromptConfig(
            task_type=TASK_TYPES[facts.kind],
            target_modules=ATTENTION,
            adapter_len=self.options.adapter_len,
            adapter_layers=len(self.targets(facts)),
        )
