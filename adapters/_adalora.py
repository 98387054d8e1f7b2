"""The heavy half of AdaLoRA. PEFT allocates the ranks but leaves it to its caller to ask for it after every step, adds
the penalty to every loss, evaluations included, and cuts pruned ranks out of a saved file in a way that depends on its
own notes; here the training engine asks, the penalty is apart from the loss, and pruned ranks are zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from peft import AdaLoraConfig
from torch import Tensor, nn

from inlay.adapters import _peft


class Pruned(_peft.PeftAdapted):
    """A base with AdaLoRA in it."""

    def __init__(self, found: _peft.PeftAdapted, *, fresh: bool) -> None:
        # `ranknum` is a constant that PEFT keeps as a parameter.
        own = tuple(name for name in found.own if ".ranknum." not in name)
        super().__init__(found.model, own, found.children)
        # Of an adapter that was pruned before, e is zero exactly where a rank was dropped.
        self._kept = None if fresh else {name: tensor != 0 for name, tensor in self._weights("lora_E").items()}

    @classmethod
    def attach(cls, config: AdaLoraConfig, model: nn.Module, *, seed: int) -> Self:
        """A fresh adapter, see `_peft.attach`; it prunes as `config` says."""
        return cls(_peft.attach(config, model, seed=seed), fresh=True)

    @classmethod
    def load(cls, config: AdaLoraConfig, folder: Path, model: nn.Module) -> Self:
        """The adapter saved in `folder`, see `_peft.load`; its ranks stay as they are."""
        return cls(_peft.load(config, folder, model), fresh=False)

    def penalty(self) -> Tensor | None:
        weight = self.model.active_peft_config.orth_reg_weight
        products = [q @ q.T for q in self._weights("lora_A").values()]
        products += [p.T @ p for p in self._weights("lora_B").values()]
        distances = [torch.linalg.norm(x - torch.eye(len(x), device=x.device)) for x in products]
        return weight * torch.stack(distances).mean()

    def after_step(self, step: int) -> None:
        if self._kept is None:
            self.model.base_model.update_and_allocate(step)
            return
        with torch.no_grad():
            for name, tensor in self._weights("lora_E").items():
                tensor.mul_(self._kept[name])

    def save(self, folder: Path) -> None:
        config = self.model.active_peft_config
        pattern, config.rank_pattern = config.rank_pattern, None
        try:
            super().save(folder)
        finally:
            config.rank_pattern = pattern

    def ranks(self) -> dict[str, int]:
        """The number of ranks of each layer that are not pruned."""
        return {name: int((tensor != 0).sum()) for name, tensor in self._weights("lora_E").items()}

    def _weights(self, part: str) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if f".{part}." in name}
