"""Bottleneck adapters without PEFT or this package: a function that exports bring along in their `load.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def add_bottlenecks(
    model: torch.nn.Module, tensors: dict[str, torch.Tensor], *, parallel: bool, activation: str, scaling: float
) -> None:
    """Adds bottleneck adapters to a model: y + scaling * (W_up f(W_down h + b_down) + b_up).

    Args:
        model: the base, changed in place.
        tensors: weights by name; the names tell the modules: `base_model.model.<module>.bottleneck_down.weight`.
        parallel: h is the module's input; else its output y.
        activation: f: `relu`, `gelu`, `silu` or `tanh`.

    Raises:
        ValueError: a tensor has no place in the model.
    """
    from torch import nn

    f = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}[activation]()

    def add(module: nn.Module, given: tuple, named: dict, result: object) -> object:
        y = result[0] if isinstance(result, tuple) else result
        h = (given[0] if given else named["hidden_states"]) if parallel else y
        down, up = module.bottleneck_down, module.bottleneck_up
        y = (y + scaling * up(f(down(h.to(down.weight.dtype))))).to(y.dtype)
        return (y, *result[1:]) if isinstance(result, tuple) else y

    modules, rest = dict(model.named_modules()), dict(tensors)
    for key in tensors:
        name, last, _ = key.partition(".bottleneck_down.weight")
        if last:
            module = modules[name.removeprefix("base_model.model.")]
            device = next(module.parameters()).device
            for part in ("bottleneck_down", "bottleneck_up"):
                weight, bias = (rest.pop(f"{name}.{part}.{kind}") for kind in ("weight", "bias"))
                layer = nn.Linear(weight.shape[1], weight.shape[0])
                layer.load_state_dict({"weight": weight, "bias": bias})
                module.register_module(part, layer.to(device))
            module.register_forward_hook(add, with_kwargs=True)
    if rest:
        raise ValueError(f"these weights have no place in the model: {sorted(rest)}")
