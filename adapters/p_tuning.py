"""P-tuning: virtual tokens before the text, whose embeddings a small network computes while it trains.

    [p_1, ..., p_n, e(x_1), ..., e(x_m)]        p = f(E), E: one trained vector for each virtual token
    MLP     f(E) = W3 relu(W2 relu(W1 E))       each layer with a bias
    LSTM    f(E) = W2 relu(W1 lstm(E))          bidirectional

In an encoder-decoder base the virtual tokens stand before the encoder's text. Only p is saved: a reloaded adapter is a
plain prompt, and trains on as one.
Source: Liu et al. 2021, "GPT Understands, Too", arXiv:2103.10385, section 3.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from inlay.adapters import Adapted, Facts
from inlay.adapters._virtual import Virtual

if TYPE_CHECKING:
    from peft import PromptEncoderConfig
    from torch import nn


class PTuning(Virtual):
    """Virtual tokens from a trained network; not mergeable."""

    title: ClassVar[str] = "P-tuning"
    paper: ClassVar[str] = "Liu et al. 2021, arXiv:2103.10385"
    place: ClassVar[str] = "before the text"
    learning_rate: ClassVar[float] = 3e-3
    peft_type: ClassVar[str] = "P_TUNING"
    fresh: ClassVar[tuple[str, ...]] = (
        "encoder_reparameterization_type",
        "encoder_hidden_size",
        "encoder_num_layers",
        "encoder_dropout",
    )

    class Options(Virtual.Options):
        """Options of P-tuning."""

        encoder_reparameterization_type: Literal["MLP", "LSTM"] = Field("MLP", description="the network")
        encoder_hidden_size: int | None = Field(
            None, ge=1, le=65536, description="width of the network; the base's own where it is not given"
        )
        encoder_num_layers: int = Field(2, ge=1, le=16, description="layers of an LSTM")
        encoder_dropout: float = Field(0.0, ge=0, lt=1, description="dropout between the layers of an LSTM")

        @model_validator(mode="after")
        def _lstm_options_need_one(self) -> Self:
            for name in ("encoder_num_layers", "encoder_dropout"):
                if name in self.model_fields_set and self.encoder_reparameterization_type != "LSTM":
                    raise ValueError(f"{name} has no effect without encoder_reparameterization_type: LSTM")
            return self

    options: Options

    def trainable(self, facts: Facts) -> int:
        width, inner = facts.hidden, self.options.encoder_hidden_size or facts.hidden
        embedded = self.options.num_virtual_tokens * width
        if self.options.encoder_reparameterization_type == "MLP":
            return embedded + (width + 1) * inner + (inner + 1) * inner + (inner + 1) * width
        inputs = [width, *[2 * inner] * (self.options.encoder_num_layers - 1)]
        lstm = sum(2 * 4 * inner * (size + inner + 2) for size in inputs)
        return embedded + lstm + (2 * inner + 1) * 2 * inner + (2 * inner + 1) * width

    def continued(self, facts: Facts) -> int:
        return self.options.num_virtual_tokens * facts.hidden

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        from inlay.adapters import _peft

        return _peft.attach(self._config(facts), model, seed=seed)

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        from peft.tuners.p_tuning import PromptEncoderReparameterizationType
        from torch.nn import Identity

        from inlay.adapters import _peft

        adapted = _peft.load(self._config(facts), folder, model)
        # The saved embeddings are the network's output: nothing more is to be computed from them.
        encoder = adapted.model.prompt_encoder["default"]
        encoder.encoder_type = PromptEncoderReparameterizationType.MLP
        encoder.mlp_head = Identity()
        encoder.lstm_head = None
        adapted.own = tuple(name for name in adapted.own if name.endswith(".embedding.weight"))
        return adapted

    def _config(self, facts: Facts) -> PromptEncoderConfig:
        from peft import PromptEncoderConfig

        from inlay.adapters._peft import TASK_TYPES

        options = self.options
        return PromptEncoderConfig(
            task_type=TASK_TYPES[facts.kind],
            num_virtual_tokens=options.num_virtual_tokens,
            encoder_reparameterization_type=options.encoder_reparameterization_type,
            encoder_hidden_size=options.encoder_hidden_size or facts.hidden,
            encoder_num_layers=options.encoder_num_layers,
            encoder_dropout=options.encoder_dropout,
            token_dim=facts.hidden,
            num_attention_heads=facts.kv_heads,
            num_layers=facts.layers,
            # PEFT would train a second set for a decoder, and leave it out when text is generated.
            num_transformer_submodules=1,
        )
