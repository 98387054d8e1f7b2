"""`inlay export A B --combine`: several adapters of one base as one, which is measured, proved and shipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_runs
import torch
from safetensors.torch import load_file
from tiny_runs import inlay
from torch import Tensor

import inlay as package
from inlay.adapters.lora import APART, COMBINATIONS, WHOLE, Lora, combine
from inlay.tuner import base as bases
from inlay.tuner import model_files
from inlay.tuner.export.merge import hollow_base

DENSITY, FULL = 0.4, 64
# Of each part: rank, strength, whether it is divided by the root of the rank, and where it stands.
PARTS = (
    Lora.Options(r=4, lora_alpha=6),
    Lora.Options(r=4, lora_alpha=2, use_rslora=True, target_modules=("q_proj", "down_proj")),
)
WEIGHTS = (0.7, -0.4)


@pytest.fixture(scope="module")
def setting(tiny_models):
    files = model_files.locate(str(tiny_models("llama")))
    return SimpleNamespace(files=files, facts=bases.read_facts(bases.read_config(files), 4))


@pytest.fixture(scope="module")
def parts(setting, tmp_path_factory):
    """Two adapters whose B is not zero: options and folder."""
    found = []
    for seed, options in enumerate(PARTS):
        method, folder = Lora(options), tmp_path_factory.mktemp("part")
        adapted = method.attach(hollow_base(setting), setting.facts, seed=seed, steps=0)
        generator = torch.Generator().manual_seed(seed)
        adapted.load_state({n: torch.randn(t.shape, generator=generator) for n, t in adapted.state().items()})
        adapted.save(folder)
        found.append((method, folder))
    return found


def factors(folder: Path, name: str) -> tuple[Tensor, Tensor] | None:
    found = load_file(folder / "adapter_model.safetensors")
    names = [f"base_model.model.{name}.lora_{part}.weight" for part in "AB"]
    return (found[names[0]], found[names[1]]) if names[0] in found else None


def scale(options: Lora.Options) -> float:
    return options.lora_alpha / (options.r**0.5 if options.use_rslora else options.r)


def wanted_updates(parts, name: str) -> list[tuple[Tensor, float]]:
    """For each part that stands there, its update and its weight, from the files alone."""
    found = []
    for (method, folder), weight in zip(parts, WEIGHTS, strict=False):
        if pair := factors(folder, name):
            found.append((scale(method.options) * pair[1] @ pair[0], weight))
    return found


def pruned(update: Tensor, density: float) -> Tensor:
    """Without all but the share of numbers that are largest."""
    least = update.abs().flatten().sort(descending=True).values[int(density * update.numel()) - 1]
    return update * (update.abs() >= least)


def ties(updates: list[Tensor], weights: list[float]) -> Tensor:
    """Yadav et al. 2023, arXiv:2306.01708, algorithm 1: trim, elect the sign of the larger sum, take the mean of those
    that agree; each weighed."""
    trimmed = torch.stack([pruned(update, DENSITY) for update in updates])
    sign = torch.where(trimmed.sum(0) >= 0, 1.0, -1.0)
    agree = trimmed.sign() == sign
    weighed = trimmed * torch.tensor(weights)[:, None, None] * agree
    return weighed.sum(0) / agree.sum(0).clamp(min=1)


def made(setting, parts, kind: str, weights=WEIGHTS, **options) -> dict[str, Tensor]:
    """The combined updates, out x in."""
    found = combine(parts, weights, kind, hollow_base(setting), setting.facts, **options)
    return {name: b @ a for name, (a, b) in found.items()}


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("kind", ["cat", "svd"])
def test_a_weighted_sum_is_the_weighted_sum_of_the_updates(kind, setting, parts):
    """Each at the strength that it was trained with, `use_rslora` or not, and where it stands alone, too."""
    options = {"rank": 8} if kind == "svd" else {}
    found = made(setting, parts, kind, **options)
    assert set(found) == set(setting.facts.linears)
    for name, update in found.items():
        close(update, sum(weight * update for update, weight in wanted_updates(parts, name)))


def test_a_sum_by_singular_values_is_the_nearest_of_its_rank(setting, parts):
    name = "model.layers.0.self_attn.q_proj"
    left, values, right = torch.linalg.svd(sum(weight * update for update, weight in wanted_updates(parts, name)))
    close(made(setting, parts, "svd", rank=3)[name], left[:, :3] * values[:3] @ right[:3])
    close(made(setting, parts, "svd")[name], left[:, :4] * values[:4] @ right[:4])


def test_linear_is_of_a_and_b_apart(setting, parts):
    """As PEFT documents it: a root of the weight on each, so that products of different adapters come in."""
    name = "model.layers.1.mlp.down_proj"
    a = b = 0
    for (method, folder), weight in zip(parts, WEIGHTS, strict=True):
        root = abs(weight * scale(method.options)) ** 0.5
        one, two = factors(folder, name)
        a, b = a + (root if weight > 0 else -root) * one, b + root * two
    close(made(setting, parts, "linear")[name], b @ a)


def test_ties_and_pruning_of_whole_updates_are_those_of_their_papers(setting, parts):
    name, weights = "model.layers.0.self_attn.q_proj", [0.9, 1.2]
    updates = [update for update, _ in wanted_updates(parts, name)]
    found = made(setting, parts, "ties_svd", weights, density=DENSITY, rank=FULL)[name]
    close(found, ties(updates, weights))
    found = made(setting, parts, "magnitude_prune_svd", WEIGHTS, density=DENSITY, rank=FULL)[name]
    close(found, sum(weight * pruned(update, DENSITY) for update, weight in wanted_updates(parts, name)))


def test_dare_drops_numbers_by_its_seed_and_scales_the_others_up(setting, parts):
    name = "model.layers.0.self_attn.v_proj"  # where one of the parts stands alone
    ((update, weight),) = wanted_updates(parts, name)
    options = {"density": DENSITY, "rank": FULL}
    one = made(setting, parts, "dare_linear_svd", **options, seed=1)[name]
    kept = (one / (weight * update)).abs() > 1
    close(one, kept * weight * update / DENSITY)
    assert kept.float().mean() == pytest.approx(DENSITY, abs=0.1)
    state = torch.random.get_rng_state()
    assert torch.equal(made(setting, parts, "dare_linear_svd", **options, seed=1)[name], one)
    assert not torch.allclose(made(setting, parts, "dare_linear_svd", **options, seed=2)[name], one)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("kind", COMBINATIONS)
def test_an_adapter_with_itself_and_nothing_dropped_is_that_adapter(kind, setting, parts):
    """TIES takes a mean of its own, so its weights are 1. Where A and B are summed apart, PEFT makes it as strong again:
    (2 root(1/2) B)(2 root(1/2) A)."""
    weights = (1.0, 1.0) if "ties" in kind else (0.5, 0.5)
    options = {"density": 1.0} if kind not in ("cat", "linear", "svd") else {}
    found = made(setting, [parts[0], parts[0]], kind, weights, **options)
    for name, update in found.items():
        ((wanted, _),) = wanted_updates(parts[:1], name)
        close(update, (2 if kind in APART and "ties" not in kind else 1) * wanted)
