"""Prompt tuning: trained embeddings of virtual tokens before those of the text; the base stays as it is.

    [p_1, ..., p_n, e(x_1), ..., e(x_m)]        p_i: one trained vector of the base's width for each virtual token

In an encoder-decoder base the virtual tokens stand before the encoder's text. They start as the embeddings of tokens
drawn from the vocabulary, which the paper finds better than random vectors (section 3.2).
Source: Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", arXiv:2104.08691, section 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from inlay.adapters import Adapted, Facts
from inlay.adapters._virtual import Virtual

if TYPE_CHECKING:
    from peft import PromptTuningConfig
    from torch import nn


class Prompt(Virtual):
    """Trained embeddings before the text's; not mergeable."""

    title: ClassVar[str] = "prompt tuning"
    paper: ClassVar[str] = "Lester et al. 2021, arXiv:2104.08691"
    place: ClassVar[str] = "before the text"
    learning_rate: ClassVar[float] = 3e-2
    peft_type: ClassVar[str] = "PROMPT_TUNING"
    fresh: ClassVar[tuple[str, ...]] = ("prompt_tuning_init",)

    class Options(Virtual.Options):
        """Options of prompt tuning."""

        prompt_tuning_init: Literal["sample_vocab", "random"] = Field(
            "sample_vocab", description="the prompt at the start: embeddings of drawn tokens, or random vectors"
        )

    options: Options

    def trainable(self, facts: Facts) -> int:
        return self.options.num_virtual_tokens * facts.hidden

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        from inlay.adapters import _peft

        return _peft.attach(self._config(facts), model, seed=seed)

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        from inlay.adapters import _peft

        return _peft.load(self._config(facts), folder, model)

    def _config(self, facts: Facts) -> PromptTuningConfig:
        from peft import PromptTuningConfig

        from inlay.adapters._peft import TASK_TYPES

        return PromptTuningConfig(
            task_type=TASK_TYPES[facts.kind],
            num_virtual_tokens=self.options.num_virtual_tokens,
            prompt_tuning_init=self.options.prompt_tuning_init.upper(),
            token_dim=facts.hidden,
            num_attention_heads=facts.kv_heads,
            num_layers=facts.layers,
            # PEFT would train a second set for a decoder, and leave it out when text is generated.
            num_transformer_submodules=1,
        )
