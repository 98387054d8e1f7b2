"""The bottleneck adapter as a method of PEFT, which has none: configuration, layer, model, and their registration.

Importing this module is what makes PEFT know the method: do so before `PeftModel.from_pretrained` or
`AutoPeftModelForCausalLM.from_pretrained` of a saved bottleneck adapter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from inlay.adapters.bottleneck import Placement, sites

NAME, PREFIX = "BOTTLENECK", "bottleneck_"
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh}


@dataclass
class BottleneckConfig(PeftConfig):
    """PEFT's configuration of a bottleneck adapter; the fields are `Bottleneck.Options`'.

    `target_modules` may be left out: the placement's own modules are then found in the model.
    """

    placement: Placement = field(default="houlsby")
    bottleneck_size: int = field(default=64)
    activation: str = field(default="relu")
    scaling: float = field(default=1.0)
    dropout: float = field(default=0.0)
    init_std: float = field(default=0.01)
    target_modules: list[str] | str | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = NAME
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A module of the base with adapters after it (houlsby, pfeiffer) or beside it (parallel).

    Attributes:
        bottleneck_down, bottleneck_up: by adapter name, fp32 whatever the base's dtype.
        bottleneck_config: by adapter name.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_config",)

    def __init__(self, base_layer: nn.Module, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.inputs, self.outputs = inputs, outputs
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_config: dict[str, BottleneckConfig] = {}

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Adds an adapter, or replaces the one of that name, as an exact identity."""
        inputs = self.inputs if config.placement == "parallel" else self.outputs
        down = nn.Linear(inputs, config.bottleneck_size)
        up = nn.Linear(config.bottleneck_size, self.outputs)
        nn.init.normal_(down.weight, std=config.init_std)
        for zero in (down.bias, up.weight, up.bias):
            nn.init.zeros_(zero)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up
        self.bottleneck_config[adapter_name] = config
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> object:
        """What the base's module returns, the adapters' contribution added to its (first) output.

        Args:
            hidden_states: (..., inputs).
            args, kwargs: whatever else the base's module takes.
        """
        result = self.base_layer(hidden_states, *args, **kwargs)
        active = [name for name in self.active_adapters if name in self.bottleneck_down]
        if self.disable_adapters or not active:
            return result
        output = result[0] if isinstance(result, tuple) else result
        change = sum(self._change(name, hidden_states, output) for name in active)
        changed = (output + change).to(output.dtype)
        return (changed, *result[1:]) if isinstance(result, tuple) else changed

    def _change(self, name: str, hidden_states: Tensor, output: Tensor) -> Tensor:
        config, down = self.bottleneck_config[name], self.bottleneck_down[name]
        x = hidden_states if config.placement == "parallel" else output
        inner = ACTIVATIONS[config.activation](down(x.to(down.weight.dtype)))
        inner = F.dropout(inner, config.dropout, self.training)
        return config.scaling * self.bottleneck_up[name](inner)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ValueError(
            "a bottleneck adapter is not linear, so no weights of the base can hold it: keep it as an adapter"
        )

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Unlike PEFT's own, keeps fp32 and finds the device of a module that holds weights only in its children."""
        target = device or next(self.get_base_layer().parameters()).device
        for layer in (self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name]):
            if layer.weight.device.type != "meta":
                layer.to(target)


class BottleneckModel(BaseTuner):
    """Puts `BottleneckLayer`s into a model and takes them out again."""

    prefix = PREFIX
    tuner_layer_cls = BottleneckLayer

    @staticmethod
    def _prepare_adapter_config(peft_config: BottleneckConfig, model_config: dict) -> BottleneckConfig:
        return peft_config  # the modules are found in the model itself, below

    def _prepare_model(self, peft_config: BottleneckConfig, model: nn.Module) -> None:
        if peft_config.target_modules is not None:
            return
        modules = dict(model.named_modules())
        outputs = {
            name.replace(".base_layer", ""): _widths(module, 0)[1]
            for name, module in modules.items()
            if isinstance(module, (nn.Linear, Conv1D)) and module is not model.get_output_embeddings()
        }
        found = sites(peft_config.placement, outputs, _hidden(model))
        if not modules.keys() >= set(found):
            raise ValueError(
                f"a {peft_config.placement} adapter goes inside modules that a parallel adapter already wraps, where "
                "PEFT puts nothing; add the parallel adapter last"
            )
        peft_config.target_modules = set(found)

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        plain = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        layer = BottleneckLayer(target, *_widths(plain, _hidden(self.model)))
        layer.set_adapter(self.active_adapters)
        layer.update_layer(adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """Only the replacement: PEFT's own also copies weights, which a feed-forward module has none of, and moves the
        adapter, which `update_layer` has done."""
        setattr(parent, child_name, new_module)


def register() -> None:
    """Makes the method known to PEFT's loaders.

    PEFT's own `register_peft_method` accepts members of the closed enum `PeftType` only. That enum's members are
    strings, though, and PEFT looks methods up by equality, so a plain string serves as key and as `peft_type`. What
    does not work is `model.load_adapter` of transformers, which asks the type for its `.value`.
    """
    PEFT_TYPE_TO_CONFIG_MAPPING[NAME] = BottleneckConfig
    PEFT_TYPE_TO_TUNER_MAPPING[NAME] = BottleneckModel
    PEFT_TYPE_TO_PREFIX_MAPPING[NAME] = PREFIX


def _widths(module: nn.Module, hidden: int) -> tuple[int, int]:
    """Inputs and outputs of a linear layer, quantized or not; of any other module the residual stream's width."""
    if isinstance(module, nn.Linear):  # bitsandbytes' layers are subclasses
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    return hidden, hidden


def _hidden(model: nn.Module) -> int:
    return model.config.get_text_config().hidden_size


register()
