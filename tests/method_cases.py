"""Every adapter method on every shape of base, and the small things that the tests of methods do with them."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from inlay import adapters
from inlay.adapters import Adapted, Facts
from inlay.tuner import base, model_files

SHAPES, BITS = ("llama", "gpt2", "gpt_neox", "t5"), (32, 4)
STARTS_NEAR = ("pissa", "olora")  # what LoRA starts with is taken off again: the base's function up to rounding
FURTHER_OPTIONS = {
    "lora": (
        {"r": 4, "use_rslora": True, "init_lora_weights": "gaussian"},
        {"r": 4, "use_rslora": True, "init_lora_weights": "pissa"},
        {"r": 4, "lora_dropout": 0.1, "init_lora_weights": "olora"},
    ),
    "dora": ({"r": 4, "use_rslora": True},),
    "adalora": ({"init_r": 6, "target_r": 2, "lora_alpha": 8.0},),
    "p_tuning": ({"num_virtual_tokens": 4, "encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 12},),
    "prompt": ({"num_virtual_tokens": 4, "prompt_tuning_init": "random"},),
    "prefix": ({"num_virtual_tokens": 5, "prefix_projection": True, "encoder_hidden_size": 24},),
    "bottleneck": (
        {"placement": "pfeiffer", "bottleneck_size": 8, "activation": "gelu", "scaling": 2.0},
        {"placement": "parallel", "bottleneck_size": 8, "activation": "tanh"},
    ),
    "llama_adapter": ({"adapter_len": 4, "adapter_layers": 2},),
    "lokr": ({"r": 2, "decompose_both": True, "decompose_factor": 8},),
    "mam": ({"num_virtual_tokens": 4, "bottleneck_size": 8, "activation": "silu", "scaling": 2.0},),
    "oft": ({"oft_block_size": 8, "block_share": True, "use_cayley_neumann": False},),
    "road": ({"variant": "road_4", "group_size": 8},),
    "vblora": ({"r": 2, "num_vectors": 64, "vector_length": 8, "topk": 3},),
    "waveft": ({"n_frequency": 200, "wavelet_family": "db2"},),
}


@dataclass(frozen=True)
class Case:
    """A method with options, on a shape of base, in 4 or 32 bits."""

    name: str
    options: tuple[tuple[str, object], ...]
    shape: str
    bits: int

    @property
    def method(self) -> adapters.Method:
        kind = adapters.find(self.name)
        return kind(kind.Options(**dict(self.options)))

    @property
    def drawn(self) -> bool:
        digest = hashlib.sha256(f"{self.name}{self.options}".encode()).digest()
        shapes = shapes_of(self.name)
        return shapes[digest[0] % len(shapes)] == self.shape

    @property
    def quick(self) -> bool:
        """Whether the whole contract is for every run of the tests; the same layers in 32 bits are, with defaults."""
        return self.drawn and (self.bits == 4 or not self.options)

    @property
    def starts_near(self) -> bool:
        return dict(self.options).get("init_lora_weights") in STARTS_NEAR

    def __str__(self) -> str:
        chosen = "".join(f"-{value}" for _, value in self.options)
        return f"{self.name}{chosen}-{self.shape}-{'nf4' if self.bits == 4 else 'fp32'}"


def shapes_of(name: str) -> tuple[str, ...]:
    """The shapes that the method called `name` works on."""
    return tuple(shape for shape in SHAPES if name in methods_on(shape))


@functools.cache
def methods_on(shape: str) -> tuple[str, ...]:
    """The names of the methods that work on a base of this shape, which is its model type."""
    return tuple(name for name in adapters.names() if shape in (adapters.find(name).model_types or (shape,)))


CASES = [
    Case(name, tuple(options.items()), shape, bits)
    for name in adapters.names()
    for options in ({}, *FURTHER_OPTIONS.get(name, ()))
    for shape in shapes_of(name)
    for bits in BITS
]


def contract(*without: str, bits: tuple[int, ...] = BITS):
    """Parametrizes a test over every method but those named: slow but for the quick cases."""
    chosen = [case for case in CASES if case.name not in without and case.bits in bits]
    return pytest.mark.parametrize(
        "case", [pytest.param(c, id=str(c), marks=() if c.quick else pytest.mark.slow) for c in chosen]
    )


def opening(tiny_models) -> Callable[..., base.Base]:
    """A function (case, as_adapted, compute_dtype) -> base; `as_adapted`: targets plain where the method asks."""

    @functools.cache
    def known(shape: str, bits: int):
        files = model_files.locate(str(tiny_models(shape)))
        return files, base.read_facts(base.read_config(files), bits), base.read_tokenizer(files)

    @functools.cache
    def kept(shape: str, bits: int, compute_dtype: str, float_targets: tuple[str, ...]) -> base.Base:
        quantization = base.Quantization(bits=bits, compute_dtype=compute_dtype)
        files, facts, tokenizer = known(shape, bits)
        return base.open_base(files, quantization, facts, tokenizer, float_targets=float_targets)

    def open_(case: Case, *, as_adapted: bool = True, compute_dtype: str = "fp32") -> base.Base:
        facts = known(case.shape, case.bits)[1]
        float_targets = case.method.targets(facts) if as_adapted and case.method.needs_float_weights else ()
        opened = kept(case.shape, case.bits, compute_dtype, tuple(float_targets))
        return dataclasses.replace(opened, model=copy.deepcopy(opened.model))  # quicker than to open it again

    return open_


def attaching(open_base: Callable[..., base.Base]) -> Callable[..., tuple[Adapted, Facts]]:
    """A function (case, seed) -> adapted and facts, on a freshly opened base."""

    def attach_(case: Case, seed: int = 0) -> tuple[Adapted, Facts]:
        opened = open_base(case)
        return case.method.attach(opened.model, opened.facts, seed=seed, steps=50), opened.facts

    return attach_


def batch(case: Case, rows: int = 3, length: int = 12) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 400, (rows, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def logits(case: Case, model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(**batch(case)).logits


def loss_without_dropout(case: Case, adapted: Adapted) -> float:
    adapted.model.eval()
    with torch.no_grad():
        return adapted.model(**batch(case)).loss.item()


def trainable(adapted: Adapted) -> dict[str, torch.nn.Parameter]:
    return {name: weight for name, weight in adapted.model.named_parameters() if weight.requires_grad}


def train(case: Case, adapted: Adapted, steps: int, *, evaluate: bool = False) -> list[float]:
    """AdamW on one batch; dropout of the base's own is seeded by the step. Returns each step's loss."""
    optimizer = torch.optim.AdamW(trainable(adapted).values(), lr=1e-2, weight_decay=0.0)
    losses = []
    for step in range(steps):
        if evaluate:
            logits(case, adapted.model)
        adapted.model.train()
        torch.manual_seed(step)
        loss = adapted.model(**batch(case)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    adapted.model.eval()
    return losses
