"""LoRA that starts from a part of the base's own weights, PiSSA and OLoRA, on a base that stays as it is.

Both papers take what A and B start as out of the frozen weight, which a quantized W cannot hold:

    y = (W - s B0 A0) x + s B A x              s: lora_alpha / r

The same function, with the same gradients, is one LoRA of rank 2r on the untouched W, of which one half trains:

    y = W x + s [B, -B0] [A; A0] x

That is how it is computed and how it is saved, so that whatever reads adapters of LoRA reads it. The first forward pass
is the base's up to rounding, and dropout acts on what training changes, as it does in LoRA.
Source: Meng et al. 2024, "PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language Models",
arXiv:2404.02948, equations 2 to 4; Büyükakyüz 2024, "OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models",
arXiv:2406.01775, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from inlay.adapters import _peft

Start = Callable[[Tensor, int, float], tuple[Tensor, Tensor]]
"""(weight, out x in; rank r; scaling s) -> A0, r x in, and B0, out x r."""


def pissa(weight: Tensor, rank: int, scaling: float) -> tuple[Tensor, Tensor]:
    """s B0 A0 is the part of the weight with the largest singular values."""
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    root = (values[:rank] / scaling).sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def olora(weight: Tensor, rank: int, scaling: float) -> tuple[Tensor, Tensor]:
    """The first columns of Q and rows of R in W = Q R."""
    orthonormal, upper = torch.linalg.qr(weight)
    return upper[:rank], orthonormal[:, :rank]


STARTS: dict[str, Start] = {"pissa": pissa, "olora": olora}


class Half(nn.Module):
    """Makes a weight of what trains, its first half along `dim`, and of what does not."""

    def __init__(self, start: Tensor, dim: int) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.dim = dim

    def forward(self, trained: Tensor) -> Tensor:
        return torch.cat([trained, self.start], self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.tensor_split(2, self.dim)[0].clone()


class Moved(_peft.PeftAdapted):
    """A base with a LoRA of rank 2r in it, of which one half trains."""

    @classmethod
    def attach(cls, config: LoraConfig, start: Start, model: nn.Module, *, seed: int) -> Self:
        """A fresh adapter, see `_peft.attach`.

        Args:
            config: of rank 2r.
        """
        found = _peft.attach(config, model, seed=seed)
        for layer in found.model.modules():
            if isinstance(layer, LoraLayer):
                _begin(layer, start)
        own = tuple(name for name in found.model.state_dict() if ".lora_" in name)
        return cls(found.model, own, found.children)

    def _to_save(self) -> dict[str, Tensor]:
        tensors = {name: tensor for name, tensor in self.model.state_dict().items() if ".parametrizations." not in name}
        for name, module in self.model.named_modules():
            if parametrize.is_parametrized(module):
                tensors[f"{name}.weight"] = module.weight.detach()
        return get_peft_model_state_dict(self.model, state_dict=tensors, save_embedding_layers=False)


@torch.no_grad()
def _begin(layer: LoraLayer, start: Start) -> None:
    """Fills both halves of a layer's A and B, and lets the first alone train."""
    base = layer.get_base_layer()
    weight = dequantize_module_weight(base).detach().float()
    a, b = layer.lora_A["default"], layer.lora_B["default"]
    a0, b0 = start(weight.T if isinstance(base, Conv1D) else weight, a.out_features // 2, layer.scaling["default"])
    a.weight.copy_(torch.cat([a0, a0]))
    b.weight.copy_(torch.cat([b0, -b0], 1))
    parametrize.register_parametrization(a, "weight", Half(a0.clone(), 0))
    parametrize.register_parametrization(b, "weight", Half(-b0, 1))
