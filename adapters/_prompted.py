"""The heavy half of LLaMA-Adapter. PEFT wraps whole attention modules, so that the names of the base's own weights
change along with it, and names the weights that train without its usual prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from peft import AdaptionPromptConfig
from torch import nn

from inlay.adapters import _peft


class Prompted(_peft.PeftAdapted):
    """A base with gated prompts in its attention."""

    @classmethod
    def attach(cls, config: AdaptionPromptConfig, model: nn.Module, *, seed: int) -> Self:
        """A fresh adapter, see `_peft.attach`."""
        return cls._of(_peft.attach(config, model, seed=seed))

    @classmethod
    def load(cls, config: AdaptionPromptConfig, folder: Path, model: nn.Module) -> Self:
        """The adapter saved in `folder`, see `_peft.load`."""
        return cls._of(_peft.load(config, folder, model))

    @classmethod
    def _of(cls, found: _peft.PeftAdapted) -> Self:
        own = tuple(name for name in found.own if name.rpartition(".")[2].startswith("adaption_"))
        return cls(found.model, own, found.children)
