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
from inlay import adapters
from inlay.adapters.lora import APART, COMBINATIONS, Lora, combine
from inlay.tuner import base as bases
from inlay.tuner import model_files
from inlay.tuner.base import Quantization
from inlay.tuner.export.merge import hollow_base

DENSITY, FULL = 0.4, 64
# Of each part: rank, strength, whether it is divided by the root of the rank, and where it stands.
PARTS = (
    Lora.Options(r=4, lora_alpha=6),
    Lora.Options(r=4, lora_alpha=2, use_rslora=True, target_modules=("q_proj", "down_proj")),
)
WEIGHTS = (0.7, -0.4)
BY_EPOCHS = ("train.max_steps=null", "train.epochs=0.25")  # how long that is follows from the training rows


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


def wanted_updates(parts, name: str, weights=WEIGHTS) -> list[tuple[Tensor, float]]:
    """For each part that stands there, its update and its weight, from the files alone."""
    found = []
    for (method, folder), weight in zip(parts, weights, strict=True):
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


@pytest.mark.parametrize("order", [1, -1], ids=["rslora-last", "rslora-first"])
@pytest.mark.parametrize("kind", ["cat", "svd"])
def test_a_weighted_sum_is_the_weighted_sum_of_the_updates(kind, order, setting, parts):
    """Each at the strength that it was trained with, `use_rslora` or not, and where it stands alone, too."""
    options, parts = {"rank": 8} if kind == "svd" else {}, parts[::order]
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
    """TIES takes a mean of its own, so its weights are 1. Where A and B are summed apart, PEFT makes twice of it:
    (2 root(1/2) B)(2 root(1/2) A)."""
    weights = (1.0, 1.0) if "ties" in kind else (0.5, 0.5)
    options = {"density": 1.0} if kind not in ("cat", "linear", "svd") else {}
    found = made(setting, [parts[0], parts[0]], kind, weights, **options)
    for name, update in found.items():
        ((wanted, _),) = wanted_updates(parts[:1], name, (1.0,))
        close(update, (2 if kind in APART and "ties" not in kind else 1) * wanted)


@pytest.fixture(scope="module")
def world(setting, tiny_models, tmp_path_factory):
    """A folder with runs of LoRA on the same rows (`one`, `two`) and others (`three`), and adapters made elsewhere."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_runs.world(folder, tiny_models("llama"))
        for name, method, task, *more in (
            ("one", "lora", "dialogue", *BY_EPOCHS),
            ("two", "lora", "dialogue", "seed=5", "adapter.use_rslora=true", *BY_EPOCHS),
            ("three", "lora", "summarization"),
        ):
            options = [argument for line in (f"name={name}", *more) for argument in ("--set", line)]
            code, _, err = inlay("run", tiny_runs.recipe(folder, method, task).name, "--output", name, *options)
            assert code == 0, err
    for name, method, options in (
        ("higher", "lora", {"r": 6}),
        ("dora", "dora", {"r": 4}),
        ("vera", "vera", {"r": 4}),
    ):
        kind = adapters.find(method)
        made = kind(kind.Options(**options)).attach(hollow_base(setting), setting.facts, seed=0, steps=0)
        made.save(folder / name)
    shutil.copytree(folder / "one" / "adapter", folder / "plain")
    note = json.loads((folder / "plain" / "base.json").read_text())
    (folder / "plain" / "base.json").write_text(json.dumps({**note, "quantization": "fp32"}))
    return folder


def test_s25_a_combination_is_merged_and_proved_like_an_adapter(inside):
    code, out, err = inlay(
        "export", "one", "two", "--combine", "cat", "--weights", "0.7,0.5", "--to", "ship", "--dtype", "fp32"
    )
    assert code == 0, err
    assert "same output in 6 of 6 rows" in out
    assert "0.7 x one + 0.5 x two" in out
    assert "measured on the test rows of one" in out
    record = json.loads((inside / "ship" / "export.json").read_text())
    assert record["proof"]["faults"] == []
    combination = record["combination"]
    assert (combination["kind"], combination["rank"], combination["seed"]) == ("cat", 8, None)
    for part in combination["parts"]:
        alone = tiny_runs.record(inside / part["name"])
        assert part["adapter_sha256"] == alone["adapter"]["sha256"]
        assert part["scores"] == alone["metrics"]["tuned"]
    assert "| Score | Combined | one alone | two alone |" in (inside / "ship" / "README.md").read_text()
    name = "model.layers.0.mlp.up_proj"
    files = model_files.locate(str(inside / "base"))
    facts = bases.read_facts(bases.read_config(files), 4)
    base = bases.open_base(files, Quantization(4, compute_dtype="fp32"), facts, bases.read_tokenizer(files))
    wanted = bases.dequantize(base.model.get_submodule(name), torch.float32)
    for run, weight, scaling in (("one", 0.7, 32 / 4), ("two", 0.5, 32 / 4**0.5)):
        a, b = factors(inside / run / "adapter", name)
        wanted = wanted + weight * scaling * b @ a
    torch.testing.assert_close(load_file(inside / "ship" / "model.safetensors")[f"{name}.weight"], wanted)


@pytest.mark.slow
def test_a_combination_of_other_tasks_says_on_whose_rows_it_was_measured(inside):
    """And it is an adapter of its own: with a loader, and a note of its base."""
    folder = package.export(
        inside / "one",
        inside / "three",
        to="ship",
        combine="dare_ties_svd",
        density=0.8,
        form="adapter",
        recipe="summarization-lora.yaml",
        overrides=["seed=3"],
    )
    record = json.loads((folder / "export.json").read_text())
    assert record["proof"]["faults"] == []
    combination = record["combination"]
    assert (combination["rows"], combination["seed"]) == ("the test rows of summarization-lora", 3)
    assert [part["weight"] for part in combination["parts"]] == [1, 1]
    assert combination["parts"][0]["scores"] == {}
    assert combination["parts"][1]["scores"] == tiny_runs.record(inside / "three")["metrics"]["tuned"]
    assert (folder / "base.json").read_bytes() == (inside / "one" / "adapter" / "base.json").read_bytes()
    card = (folder / "README.md").read_text()
    assert "dare_ties_svd, density 0.8, seed 3, rank 4" in card
    assert "not measured on these rows: one" in card


REFUSED = {
    "one three": "it is not said how to combine them",
    "one --combine cat": "--combine makes one adapter of several",
    "one two --combine tiess": "did you mean ties?",
    "one two --combine cat --as-lora": "are LoRA already",
    "one two --combine cat --weights 1": "has 1 numbers for 2 adapters",
    "one two --combine cat --weights 1,x": "is not numbers with commas between",
    "one two --combine cat --weights 1,0": "leave that adapter out",
    "one two --combine cat --weights 1,nan": "a weight of nan",
    "one two --combine ties --weights=1,-1": "PEFT lets the adapters vote on each sign before it weighs them",
    "one two --combine cat --density 0.5": "keeps all numbers",
    "one two --combine ties --density 0": "above 0 and at most 1",
    "one two --combine cat --rank 8": "follows from its parts",
    "one two --weights 1,1": "say how adapters are combined",
    "one higher --combine linear": "use svd or cat",
    "one higher --combine dare_ties": "use dare_ties_svd",
    "one dora --combine cat": "drop the magnitudes that were trained with them",
    "one vera --combine cat": "inlay export vera --as-lora --to FOLDER makes one of LoRA of it",
    "one plain --combine cat": "trained on the base in fp32, and `one` on it in nf4 double-quantized",
    "one two --combine cat --set seed=1": "the first run brings its own recipe",
    "one two --combine cat --base base": "the run `one` knows its base",
}


@pytest.mark.parametrize("asked", REFUSED)
def test_what_cannot_be_combined_is_refused_before_weights_load(inside, asked, monkeypatch):
    monkeypatch.setattr(bases, "open_base", lambda *_, **__: pytest.fail("weights were loaded"))
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: pytest.fail("weights were loaded"))
    code, out, err = inlay("export", *asked.split(), "--to", "ship")
    assert (code, out) == (2, "")
    assert REFUSED[asked] in err
    assert not (inside / "ship").exists()


def test_s29_adapters_of_other_bases_are_not_combined(inside):
    note = inside / "two" / "adapter" / "base.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "sha256": "0" * 64}))
    code, _, err = inlay("export", "one", "two", "--combine", "cat", "--to", "ship")
    assert code == 2
    assert "`two` was not trained on the base of `one`" in err


def test_s28_a_part_that_is_not_what_was_benchmarked_is_refused(inside):
    path = inside / "two" / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    code, _, err = inlay("export", "one", "two", "--combine", "cat", "--to", "ship")
    assert code == 1
    assert "is not what was benchmarked" in err
