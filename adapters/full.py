"""Full fine-tuning: every weight of the base trains. The reference point for what adapters save and what they give up.

The weights train in fp32: with an ordinary learning rate most updates are smaller than half a unit in the last place
of a bf16 weight and would vanish. Quantized layers are replaced by plain ones that hold the same, dequantized weights.
What is saved is every tensor of the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from inlay.adapters import Adapted, Facts, Method
from inlay.adapters._files import CONFIG, read_config, read_weights, require_equal_shapes, write_config, write_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

SAVED_AS = {"method": "full"}


class FullyTrained(Adapted):
    """A base of which every weight trains; its original weights are kept on the CPU."""

    def __init__(self, model: nn.Module) -> None:
        self.model = self.inner = model
        # Clones, also on the CPU: the originals must not train along.
        self._original = {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}
        for weight in model.parameters():
            weight.data = weight.data.float()
            weight.requires_grad_(True)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        weights = dict(self.model.named_parameters())
        trained = {name: weight.data for name, weight in weights.items()}
        try:
            self._put_back()
            self.model.requires_grad_(False)  # on which the order of a sum can depend, even without a gradient
            yield
        finally:
            for name, weight in weights.items():
                weight.data = trained[name]
                weight.requires_grad_(True)

    def detach(self) -> nn.Module:
        self._put_back()
        return self.model.requires_grad_(False).eval()

    def merge(self, name: str, module: nn.Module) -> nn.Module:
        return self.model.get_submodule(name)

    def _put_back(self) -> None:
        for name, weight in self.model.named_parameters():
            weight.data = self._original[name].to(weight.device)

    def state(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.model.named_parameters()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        import torch

        weights = dict(self.model.named_parameters())
        require_equal_shapes(weights, tensors, "the saved state")
        with torch.no_grad():
            for name, tensor in tensors.items():
                weights[name].copy_(tensor)

    def save(self, folder: Path) -> None:
        write_weights(dict(self.model.named_parameters()), folder)
        write_config(SAVED_AS, folder)


class Full(Method):
    """All weights of the base train."""

    title: ClassVar[str] = "full fine-tuning"
    paper: ClassVar[str] = ""
    place: ClassVar[str] = "every weight"
    learning_rate: ClassVar[float] = 2e-5
    needs_float_weights: ClassVar[bool] = True

    @classmethod
    def made(cls, config: Mapping[str, object]) -> bool:
        return config == SAVED_AS

    def targets(self, facts: Facts) -> tuple[str, ...]:
        return tuple(facts.linears)

    def trainable(self, facts: Facts) -> int:
        return facts.parameters

    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        return FullyTrained(model)

    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        if read_config(folder) != SAVED_AS:
            raise ValueError(f"{folder / CONFIG} describes another adapter than full")
        tensors = read_weights(folder)
        adapted = FullyTrained(model)
        adapted.load_state(tensors)
        return adapted
