"""Tiny bases opened as a run opens them, with adapters that matter: their weights are random and not zero."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path
from typing import Literal

import torch

from inlay import adapters
from inlay.adapters import Adapted
from inlay.eval.scoring import Scorable
from inlay.tuner import base as bases
from inlay.tuner.base import Base, Quantization
from inlay.tuner.model_files import locate

PAD = 1
SPREAD = {"lora": 0.1, "bottleneck": 0.1, "prefix": 1.0, "full": 0.02, "prompt": 1.0, "p_tuning": 0.3}
OPTIONS = {
    "lora": {"r": 4},
    "prefix": {"num_virtual_tokens": 5},
    "prompt": {"num_virtual_tokens": 5},
    "bottleneck": {"bottleneck_size": 8},
}


@functools.cache
def known(folder: Path, bits: int):
    """What is known of the model in `folder` before its weights are loaded: files, facts, tokenizer."""
    files = locate(str(folder))
    return files, bases.read_facts(bases.read_config(files), bits), bases.read_tokenizer(files)


def opened(folder: Path, bits: int = 32, compute_dtype: str = "fp32") -> Base:
    """The base in `folder`, which is opened once and then copied, as that is quicker."""
    stamps = tuple(sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()))
    base = _opened(folder, stamps, bits, compute_dtype)
    return dataclasses.replace(base, model=copy.deepcopy(base.model))


@functools.cache
def _opened(folder: Path, _stamps: tuple, bits: int, compute_dtype: str) -> Base:
    files, facts, tokenizer = known(folder, bits)
    base = bases.open_base(files, Quantization(bits=bits, compute_dtype=compute_dtype), facts, tokenizer)
    if facts.kind == "seq2seq":
        # A fresh T5 repeats its last token, whatever the encoder read: its embeddings drown what its layers add.
        with torch.no_grad():
            base.model.shared.weight.mul_(0.05)
    return base


def adapted(base: Base, name: str, seed: int = 3) -> Adapted:
    """The method called `name` on `base`, every trainable weight moved away from its start."""
    kind = adapters.find(name)
    method = kind(kind.Options(**OPTIONS.get(name, {})))
    found = method.attach(base.model, base.facts, seed=seed, steps=50)
    shake(found.model, SPREAD.get(name, 0.1), seed)
    return found


def shake(model: torch.nn.Module, spread: float, seed: int) -> None:
    """Adds noise to the weights that train."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator).to(weight.dtype), alpha=spread)


def scorable(folder: Path, name: str = "none", *, bits: int = 32, pad_id: int = PAD) -> Scorable:
    """A model with the method called `name`, as the benchmark takes it."""
    base = opened(folder, bits)
    made = adapted(base, name)
    return Scorable(made.model, made.inner, base.facts.kind, adapters.find(name).prepends, pad_id)


def prompt_tuned(folder: Path, prepends: Literal["nothing", "tokens"] = "tokens", tokens: int = 5) -> Scorable:
    """PEFT's prompt tuning: virtual tokens before the embedded text."""
    from peft import PromptTuningConfig, get_peft_model

    base = opened(folder)
    task = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}[base.facts.kind]
    torch.manual_seed(0)
    model = get_peft_model(base.model, PromptTuningConfig(task_type=task, num_virtual_tokens=tokens))
    shake(model, 1.0, seed=3)
    return Scorable(model, model.get_base_model(), base.facts.kind, prepends, PAD)


def ids(rows: int, lengths: tuple[int, int], seed: int = 0) -> list[tuple[int, ...]]:
    """Random token ids, no special ones, of mixed length within `lengths`; the first and last are the extremes."""
    generator = torch.Generator().manual_seed(seed)
    low, high = lengths
    sizes = [low, *torch.randint(low, high + 1, (rows - 2,), generator=generator).tolist(), high]
    return [tuple(torch.randint(5, 300, (size,), generator=generator).tolist()) for size in sizes]


def plain(scorable: Scorable) -> torch.nn.Module:
    """The transformers model inside, whatever wraps it."""
    from transformers import PreTrainedModel

    return next(module for module in scorable.model.modules() if isinstance(module, PreTrainedModel))
