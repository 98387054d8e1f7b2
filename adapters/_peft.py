"""The heavy half that all methods made of PEFT share: attaching from a seed, strict loading, exact state.

Imported by `attach` and `load` only. What PEFT does on its own and this module does not: draw initial weights from the
global generator, warn and go on when a checkpoint's tensors do not fit, ask the hub whether a vocabulary was resized,
write a model card, and write the base's absolute path.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from inlay.adapters import Adapted, Kind
from inlay.adapters._files import (
    CONFIG,
    WEIGHTS,
    read_config,
    read_weights,
    require_equal_shapes,
    write_config,
    write_weights,
)

TASK_TYPES: dict[Kind, str] = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}

NO_EFFECT_ON_OUTPUT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "beta1",
        "beta2",
        "deltaT",
        "d_initial",
        "dropout",
        "encoder_dropout",
        "encoder_hidden_size",
        "encoder_num_layers",
        "encoder_reparameterization_type",
        "fan_in_fan_out",
        "feedforward_modules",
        "hira_dropout",
        "inference_mode",
        "init_lora_weights",
        "init_logits_std",
        "init_std",
        "init_vector_bank_bound",
        "init_weights",
        "lora_dropout",
        "miss_dropout",
        "module_dropout",
        "num_attention_heads",
        "num_layers",
        "orth_reg_weight",
        "peft_version",
        "prefix_projection",
        "prompt_tuning_init",
        "prompt_tuning_init_text",
        "projection_prng_key",
        "randlora_dropout",
        "rank_dropout",
        "revision",
        "runtime_config",
        "target_modules",
        "target_r",
        "task_type",
        "tfinal",
        "tinit",
        "tokenizer_kwargs",
        "tokenizer_name_or_path",
        "total_step",
        "vblora_dropout",
        "vera_dropout",
    }
)
"""Fields of PEFT configs that may differ between a saved adapter and the options it is loaded with: they do not change
what trained weights compute (a projected prefix is saved as its output, a pruned rank as zeros, random projections as
they were drawn), differ exactly when the names of the tensors do (targets; IA3 compares its own), or are of the base,
not of the adapter (layers, heads)."""

KEEPS_THE_BASE = (True, False, None, "gaussian", "eva")
"""Initialisations of LoRA that leave the base's weights alone. After the others (PiSSA, OLoRA, CorDA, LoftQ, ...) the
saved matrices belong on a base that was edited, and are noise on the original."""

Children = list[tuple[nn.Module, dict[str, nn.Module]]]


class PeftAdapted(Adapted):
    """A base wrapped by PEFT, with one adapter called `default`.

    Attributes:
        own: the names of the adapter's tensors.
        children: of each module of the base, its children before PEFT replaced some.
    """

    def __init__(self, model: PeftModel, own: tuple[str, ...], children: Children) -> None:
        self.model = model
        self.own = own
        self.children = children
        # Layers of an adapter stand inside the base; what prompt learning prepends is in the cache by then.
        self.inner = model.get_base_model()

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        with self.model.disable_adapter():
            yield

    def detach(self) -> nn.Module:
        base = self.model.get_base_model()
        # Not with PEFT's `unload`: IA3 refuses it on a quantized base, as if it were a merge.
        for module, children in self.children:
            for name, child in children.items():
                setattr(module, name, child)
        vars(base).pop("peft_config", None)
        base.disable_input_require_grads()  # PEFT hooks the embeddings of an unquantized base
        return base.requires_grad_(False).eval()

    def merge(self, name: str, module: nn.Module) -> nn.Module:
        layer = self.inner.get_submodule(name)
        if not isinstance(layer, BaseTunerLayer):
            return module
        before, layer.base_layer = layer.base_layer, module
        layer.merge(safe_merge=True, adapter_names=["default"])
        merged, layer.base_layer = layer.get_base_layer(), before  # or all merged layers would be held
        return merged

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        from inlay.adapters import _conversion

        return _conversion.factors(self.inner.get_submodule(name))

    def state(self) -> dict[str, Tensor]:
        tensors = _tensors(self.model)
        return {name: tensors[name].detach().clone() for name in self.own}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        present = _tensors(self.model)
        own = {name: present[name] for name in self.own}
        require_equal_shapes(own, tensors, "the saved state")
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name].copy_(tensor)

    def _to_save(self) -> dict[str, Tensor]:
        """What is written of the adapter, by PEFT's names."""
        return tensors_to_save(self.model)

    def save(self, folder: Path) -> None:
        write_weights(self._to_save(), folder)
        write_peft_config(self.model.active_peft_config, self.model, folder)


def write_peft_config(config: PeftConfig, model: nn.Module, folder: Path) -> None:
    """Writes `adapter_config.json`, of an adapter on `model`, without a path of this machine."""
    fields, base = config.to_dict() | {"inference_mode": True}, str(model.config.name_or_path)
    fields["base_model_name_or_path"] = None if not base or Path(base).is_absolute() or Path(base).exists() else base
    write_config({n: sorted(value) if isinstance(value, set) else value for n, value in fields.items()}, folder)


def tensors_to_save(model: PeftModel) -> dict[str, Tensor]:
    """What PEFT saves of an adapter, by its names there."""
    # What a network computes (a prompt, a prefix) is saved as it is when it is measured: without dropout.
    training = model.training
    with torch.no_grad():
        tensors = get_peft_model_state_dict(model.eval(), save_embedding_layers=False)
    model.train(training)
    return tensors


def stores_transposed(model: nn.Module, names: Iterable[str]) -> bool:
    """Whether any of the modules is GPT-2's own linear layer, which stores its weight transposed."""
    return any(isinstance(model.get_submodule(name), Conv1D) for name in names)


def attach(config: PeftConfig, model: nn.Module, *, seed: int, on_linear: bool = False) -> PeftAdapted:
    """Puts a fresh adapter on `model` in place; only its weights require gradients afterwards.

    The initial weights depend on `seed` alone: they are drawn in a fork of torch's generators, so whatever drew random
    numbers before (another method, an evaluation) changes nothing here, and nothing drawn later notices this.

    Args:
        config: PEFT's configuration of the method; PEFT completes it in place.
        model: the base, as loaded.
        seed: of the initial weights.
        on_linear: the method changes linear layers; where one is GPT-2's own, PEFT is shown an ordinary one.
    """
    children = [(module, dict(module.named_children())) for module in model.modules()]
    if on_linear:
        _replace_transposed(model, config.target_modules)
    known = {name.replace(".base_layer", "") for name in _tensors(model)}
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, config)
    if on_linear:
        _keep_dtype(wrapped)
    prefix = "base_model." if config.is_prompt_learning else "base_model.model."
    plain = {name: name.removeprefix(prefix).replace(".base_layer", "") for name in _tensors(wrapped)}
    return PeftAdapted(wrapped, tuple(name for name, base_name in plain.items() if base_name not in known), children)


def _replace_transposed(model: nn.Module, names: Iterable[str]) -> None:
    """Puts `nn.Linear` in place of GPT-2's own layers. It holds a transposed view of the same weights, not a copy, and
    so computes the very same product, to the bit."""
    for name in names:
        layer = model.get_submodule(name)
        if isinstance(layer, Conv1D):
            plain = nn.Linear(layer.nx, layer.nf, device="meta")
            plain.weight = nn.Parameter(layer.weight.detach().T, requires_grad=False)
            plain.bias = layer.bias
            model.set_submodule(name, plain.train(layer.training), strict=True)


def _keep_dtype(model: nn.Module) -> None:
    """Makes every adapted layer answer in the dtype that it was asked in.

    Some of PEFT's 4-bit layers compute a bf16 input in fp32 and leave the result so; keys then differ from queries.
    """

    def cast(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.to(inputs[0].dtype)

    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.register_forward_hook(cast)


def load(
    config: PeftConfig,
    folder: Path,
    model: nn.Module,
    *,
    on_linear: bool = False,
    prepare: Callable[[PeftModel], None] = lambda model: None,
) -> PeftAdapted:
    """Puts the adapter saved in `folder` on `model`, trainable, after checking that it is what `config` describes.

    Args:
        config, model, on_linear: as for `attach`.
        prepare: what is to be done between attaching and filling in the weights.

    Raises:
        ValueError: a file is missing or broken; an option that changes the output differs; a tensor is missing,
            unexpected or of another shape. The message names the first few.
    """
    require_equal_options(config, folder)
    tensors = read_weights(folder)
    adapted = attach(config, model, seed=0, on_linear=on_linear)
    prepare(adapted.model)
    expected = get_peft_model_state_dict(adapted.model, save_embedding_layers=False)
    require_equal_shapes(expected, tensors, str(folder / WEIGHTS))
    set_peft_model_state_dict(adapted.model, tensors)
    return adapted


def require_equal_options(config: PeftConfig, folder: Path) -> None:
    """Checks that the adapter in `folder` was trained with the options of `config`, where they change its output.

    Raises:
        ValueError: it was not.
    """
    path, saved = folder / CONFIG, read_config(folder)
    if saved.get("peft_type") != config.peft_type:
        raise ValueError(f"{path} holds a {saved.get('peft_type')} adapter, not {str(config.peft_type).split('.')[-1]}")
    start = saved.get("init_lora_weights")
    if start not in KEEPS_THE_BASE:
        raise ValueError(
            f"{path}: the adapter was initialised by {start}, which edits the base, so it does not fit the original; "
            "convert it with PEFT's path_initial_model_for_weight_conversion"
        )
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[config.peft_type]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in sorted(fields.keys() - NO_EFFECT_ON_OUTPUT):
        field = fields[name]
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        wanted, found = getattr(config, name), saved.get(name, default)
        wanted = sorted(wanted) if isinstance(wanted, set) else wanted
        if wanted != found:
            raise ValueError(
                f"{path}: the adapter was trained with {name} = {_brief(found)}, but {name} = {wanted} is asked for"
            )


def _brief(value: object) -> str:
    """A value of a configuration, its beginning where it is long."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and saved buffers by name, shared ones once."""
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    saved = model.state_dict().keys()
    tensors |= {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return tensors
