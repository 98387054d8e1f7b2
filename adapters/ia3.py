"""IA3: trained factors on keys, values and the inner activations of the feed-forward network.

    k' = l_k * k      v' = l_v * v      y = W_out (l_ff * h)        h: what enters the network's last layer

All factors start at one, so the first forward pass is the base's. A factor on a layer's output scales the rows of its
weight, one on its input the columns, so a trained adapter can be merged. Architectures that compute keys and values
together with queries (GPT-2, GPT-NeoX) get factors on all three, as the usual implementation does.
Source: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
arXiv:2205.05638, section 3.3 and equation 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from inlay.adapters import Adapted, Facts, Method, Training, _targets
from inlay.adapters import Options as BaseOptions
from inlay.adapters._files import CONFIG, read_config

if TYPE_CHECKING:
    from peft import IA3Config
    from torch import nn

# How the architectures of transformers name the layers that make keys and values, and the last feed-forward layer.
KEYS_AND_VALUES = (
    "self_attn.k_proj", "self_attn.v_proj",  # Llama, Mistral, Qwen, Gemma, OPT, ...
    "attn.c_attn",  # GPT-2
    "attention.query_key_value", "self_attention.query_key_value",  # GPT-NeoX, Falcon, BLOOM
    "attn.attention.k_proj", "attn.attention.v_proj",  # GPT-Neo
    "attn.k_proj", "attn.v_proj",  # GPT-J
    "SelfAttention.k", "SelfAttention.v", "EncDecAttention.k", "EncDecAttention.v",  # T5
)  # fmt: skip
FEED_FORWARD = (
    "mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc_out", "DenseReluDense.wo", "fc2",
)  # fmt: skip


class Ia3(Method):
    """Trained factors on activations; mergeable."""

    title: ClassVar[str] = "IA3"
    paper: ClassVar[str] = "Liu et al. 2022, arXiv:2205.05638"
    place: ClassVar[str] = "keys, values, feed-forward"
    learning_rate: ClassVar[float] = 3e-3
    peft_type: ClassVar[str] = "IA3"
    saved: ClassVar[tuple[str, ...]] = ("target_modules", "feedforward_modules")

    class Options(BaseOptions):
        """Options of IA3."""

        target_modules: tuple[str, ...] | None = Field(
            None,
            min_length=1,
            description="names of linear layers whose output is scaled, or whose input is (feedforward_modules); "
            "by default keys, values and the last feed-forward layer",
        )
        feedforward_modules: tuple[str, ...] | None = Field(
            None, description="those of target_modules whose input is scaled instead of their output"
        )

        @model_validator(mode="after")
        def _inputs_are_targets(self) -> Self:
            extra = set(self.feedforward_modules or ()) - set(self.target_modules or ())
            if extra:
                raise ValueError(f"feedforward_modules names `{min(extra)}`, which target_modules does not")
            return self

    options: Options

    def targets(self, facts: Facts) -> tuple[str, ...]:
        return _targets.matching(self.options.target_modules or (*KEYS_AND_VALUES, *FEED_FORWARD), facts.linears)

    def _scaled_inputs(self, facts: Facts) -> tuple[str, ...]:
        """Those of the targets whose input is scaled."""
        named = self.options.feedforward_modules if self.options.target_modules else FEED_FORWARD
        return _targets.matching(named or (), self.targets(facts))

    def refusal(self, facts: Facts, training: Training) -> str | None:
        if reason := super().refusal(facts, training):
            return reason
        if self.options.target_modules:
            return _targets.refusal(self.options.target_modules, facts.linears, facts)
        inputs = self._scaled_inputs(facts)
        if not inputs or len(inputs) == len(self.targets(facts)):
            return (
                f"{self.title} does not know how a {facts.model_type} base names its keys, values and feed-forward "
                "layers; name them in target_modules and feedforward_modules"
            )
        return None

    def trainable(self, facts: Facts) -> int:
        inputs = set(self._scaled_inputs(facts))
        layers = {name: facts.linears[name] for name in self.targets(facts)}
        return sum(x.in_features if name in inputs else x.out_features for name, x in layers.items())

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        from inlay.adapters import _peft

        return _peft.attach(self._config(facts), model, seed=seed, on_linear=True)

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        from inlay.adapters import _peft

        inputs = read_config(folder).get("feedforward_modules") or ()
        if isinstance(inputs, str) or _targets.matching(inputs, self.targets(facts)) != self._scaled_inputs(facts):
            raise ValueError(f"{folder / CONFIG}: the adapter scales the inputs of other layers: {inputs}")
        return _peft.load(self._config(facts), folder, model, on_linear=True)

    def _config(self, facts: Facts) -> IA3Config:
        from peft import IA3Config

        from inlay.adapters._peft import TASK_TYPES

        return IA3Config(
            task_type=TASK_TYPES[facts.kind],
            target_modules=list(self.targets(facts)),
            feedforward_modules=list(self._scaled_inputs(facts)),
        )
