"""The contract of an adapter method. Every other module of this folder is one method.

`method: lora` in a recipe names the module `adapters/lora.py` and the one `Method` in it: the folder is the registry.
A method has two halves. The light half, `Method`, holds options and answers questions from `Facts` alone, before any
weight is loaded; its module imports pydantic and this contract, nothing heavy. The heavy half, `Adapted`, is what
`attach` returns: a model with the adapter in it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

Kind = Literal["causal", "seq2seq"]


@dataclass(frozen=True)
class Linear:
    """One linear layer of the base: `in_features` -> `out_features`, with a bias or without."""

    in_features: int
    out_features: int
    bias: bool = False


@dataclass(frozen=True)
class Facts:
    """What a method may ask about a base, read from its config on the meta device; no weights are needed.

    Attributes:
        model_type: the config's own name of the architecture (`llama`, `gpt2`, `t5`, ...).
        kind: decoder only (`causal`) or encoder and decoder (`seq2seq`).
        hidden: width of the residual stream.
        layers: transformer blocks; for `seq2seq`, of the decoder.
        kv_heads, head_dim: shape of one layer's keys and values per token.
        context: longest sequence in tokens; None where positions are relative (T5).
        linears: every linear layer by its full module name, the output head left out.
        norms: every normalization layer by its full name, with the number of its weights.
        modules: full names of all modules.
        parameters: number of weights, tied ones counted once.
        tied: input embedding and output head share one tensor.
        bits: 4, 8, 16 or 32 as loaded.
    """

    model_type: str
    kind: Kind
    hidden: int
    layers: int
    kv_heads: int
    head_dim: int
    context: int | None
    linears: Mapping[str, Linear]
    norms: Mapping[str, int]
    modules: frozenset[str]
    parameters: int
    tied: bool
    bits: int


@dataclass(frozen=True)
class Training:
    """What a method may ask about the training it is meant for.

    Attributes:
        gradient_checkpointing: activations are computed again in the backward pass.
        steps: optimizer steps; None where the recipe alone does not say.
        early_stopping: the weights of an earlier step may be kept.
    """

    gradient_checkpointing: bool
    steps: int | None = None
    early_stopping: bool = False


class Options(BaseModel):
    """The options of a method in a recipe, named as PEFT names them. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Method(ABC):
    """The light half of an adapter method: options and literals, no weights.

    Attributes:
        title: the method's usual name.
        paper: where it is defined.
        learning_rate: used where the recipe names none.
        place: where it stands in the base unless told otherwise, in a few words.
        kinds: the kinds of base that it works on.
        model_types: the architectures that it works on; empty where any of those kinds will do.
        prepends: `nothing`; `tokens` before the embedded text; `keys` before each layer's keys and values.
        needs_float_weights: its target layers must be plain linear layers, so they are dequantized first.
        identity: the adapted model equals the base before the first step (up to rounding, where LoRA starts from the
            base's own weights).
        mergeable: the trained adapter can be written into the base's weights.
        convertible: PEFT can turn the trained adapter into one of LoRA (`Adapted.factors`).
        checkpointing: it trains under activation checkpointing.
        size: the option that says how many weights train; empty where none does.
        sizes: the values that it may be given to match a number of weights, ascending.
        peft_type: what PEFT calls it in a saved configuration; empty where PEFT has no part in it.
        saved: the options that a saved adapter settles: they say what its weights compute.
        fresh: the options that only a fresh adapter heeds: how it starts, and what it is made of while it trains.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    learning_rate: ClassVar[float]
    place: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]] = ("causal", "seq2seq")
    model_types: ClassVar[tuple[str, ...]] = ()
    prepends: ClassVar[Literal["nothing", "tokens", "keys"]] = "nothing"
    needs_float_weights: ClassVar[bool] = False
    identity: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True
    convertible: ClassVar[bool] = False
    checkpointing: ClassVar[bool] = True
    size: ClassVar[str] = ""
    sizes: ClassVar[Sequence[int]] = ()
    peft_type: ClassVar[str] = ""
    saved: ClassVar[tuple[str, ...]] = ()
    fresh: ClassVar[tuple[str, ...]] = ()

    Options: ClassVar[type[Options]] = Options

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def made(cls, config: Mapping[str, object]) -> bool:
        """Whether an adapter with this `adapter_config.json` is of this method."""
        return bool(cls.peft_type) and config.get("peft_type") == cls.peft_type

    @property
    def prepended(self) -> int:
        """Positions of the context that the adapter takes before the text."""
        return 0

    def targets(self, facts: Facts) -> tuple[str, ...]:
        """The full names of the modules that the method changes or wraps, in the model's order."""
        return ()

    def refusal(self, facts: Facts, training: Training) -> str | None:
        """Why the method cannot work on this base or with this training, in one line; None where it can."""
        if facts.kind not in self.kinds:
            return f"{self.title} works on {' and '.join(self.kinds)} models; this base is {facts.kind}"
        if self.model_types and facts.model_type not in self.model_types:
            return f"{self.title} is made for {' and '.join(self.model_types)} bases; this one is {facts.model_type}"
        if self.needs_float_weights and facts.bits == 8:
            return (
                f"{self.title} needs plain layers, and none computes what an 8-bit one does, which also rounds its "
                "inputs; set base.quantization.bits to 4 or 16"
            )
        if training.gradient_checkpointing and not self.checkpointing:
            return f"{self.title} cannot train under activation checkpointing; set train.gradient_checkpointing: false"
        return None

    @abstractmethod
    def trainable(self, facts: Facts) -> int:
        """The number of weights that will train, by the method's closed formula."""

    def at_size(self, value: int) -> Self:
        """The method with its size option at this value and the others as they are."""
        given = self.options.model_dump(exclude_unset=True)
        return type(self)(type(self.options).model_validate({**given, self.size: value}))

    def sized(self, facts: Facts, weights: int) -> Options | None:
        """The options that train as near to `weights` weights as the size option allows; None where there is none.

        Raises:
            LookupError: none of `sizes` fits this base.
        """
        from inlay.adapters import _size

        return _size.nearest(self, facts, weights) if self.size else None

    def continued(self, facts: Facts) -> int:
        """The number of weights that train on in a saved adapter."""
        return self.trainable(facts)

    @abstractmethod
    def attach(self, model: nn.Module, facts: Facts, *, seed: int, steps: int) -> Adapted:
        """Puts a fresh adapter on `model`, initialised from `seed`, and freezes everything else.

        Args:
            steps: optimizer steps that are to follow, for a method with a schedule of its own.
        """

    @abstractmethod
    def load(self, folder: Path, model: nn.Module, facts: Facts) -> Adapted:
        """Puts the adapter that `Adapted.save` wrote to `folder` on `model`.

        Raises:
            ValueError: a tensor is missing, unexpected or of another shape.
        """


class Adapted(ABC):
    """A base with an adapter in it.

    Attributes:
        model: what to call; takes and returns what the base takes and returns.
        inner: the module that continues from a key/value cache which `model` has filled (a method that prepends keys
            would prepend them again if `model` were called).
    """

    model: nn.Module
    inner: nn.Module

    @abstractmethod
    def disabled(self) -> AbstractContextManager[None]:
        """Inside, `model` is the untouched base, bit for bit."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Copies of all tensors that a freshly opened base lacks."""

    @abstractmethod
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `state` returned."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes the adapter to `folder`, weights as safetensors."""

    def detach(self) -> nn.Module | None:
        """Takes the adapter off; this object is of no use afterwards.

        Returns:
            The base exactly as `attach` found it, frozen and in evaluation mode, ready for another adapter; None where
            it cannot be had back, and has to be opened afresh.
        """
        return None

    def merge(self, name: str, module: nn.Module) -> nn.Module:
        """Writes the adapter into one module of the base. Of a mergeable method, all modules merged make a plain model
        that computes what the base and the adapter compute together.

        Args:
            name: the module's full name in the base.
            module: a plain one (`nn.Linear` for a linear layer) with the base's weights in fp32; it may be changed.

        Returns:
            A module with the merged weights; `module` as it is where the adapter does not touch it.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be written into the base's weights")

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """Of a convertible method: what it adds to the weight of a linear layer, as the product B A that LoRA is.

        Args:
            name: the full name, in the base, of one of the method's targets.

        Returns:
            A, rank x in, with orthonormal rows, and B, out x rank, in fp32. The norms of B's columns are the update's
            singular values, the largest first, and there are all of them.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be turned into LoRA")

    def penalty(self) -> Tensor | None:
        """What the method adds to the training loss of a step, in nats; None where it adds nothing."""
        return None

    def after_step(self, step: int) -> None:
        """Called after each optimizer step, numbered from 1, while its gradients are still there."""
        return


def names() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def recognize(folder: Path) -> tuple[str, dict[str, object]]:
    """The method that made the adapter in `folder`, here or elsewhere with PEFT, and the options that it settles.

    Raises:
        ValueError: the folder holds no adapter's configuration, or one of a method that is not known here.
    """
    from inlay.adapters._files import CONFIG, read_config

    config = read_config(folder)
    for name in names():
        method = find(name)
        if method.made(config):
            settled = {key: config[key] for key in method.saved if config.get(key) is not None}
            pattern = settled.get("target_modules")
            if isinstance(pattern, str):
                raise ValueError(f"{folder / CONFIG}: target_modules is a pattern, {pattern!r}; expected names")
            return name, settled
    kind = config.get("peft_type") or config.get("method")
    raise ValueError(f"{folder / CONFIG} describes an adapter of the kind {kind}; known methods: {', '.join(names())}")


def reason_against(name: str) -> str | None:
    """Why the method called `name` is not offered; None where nothing is known of it."""
    from inlay.adapters import _refused

    return _refused.reason(name)


def find(name: str) -> type[Method]:
    """The class of the method called `name`; imports that one module.

    Raises:
        LookupError: no such method; the message says why it is not offered, or names the closest one.
    """
    if name not in names():
        if reason := reason_against(name):
            raise LookupError(f"adapter method `{name}` is not offered: {reason}")
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        raise LookupError(f"unknown adapter method `{name}`{hint} (known: {', '.join(names())})")
    module = importlib.import_module(f"{__name__}.{name}")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    )
