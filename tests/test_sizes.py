"""The size of a method for a wanted number of weights, against trying the sizes around it one by one."""

from __future__ import annotations

import pytest
from method_cases import methods_on

from inlay import adapters
from inlay.adapters import Training
from inlay.tuner import base, model_files

PLAIN = Training(gradient_checkpointing=False)
WITH_A_SIZE = pytest.mark.parametrize(
    ("facts", "name"),
    [(shape, name) for shape in ("llama", "t5") for name in methods_on(shape) if adapters.find(name).size],
    indirect=["facts"],
)


@pytest.fixture(scope="module", params=["llama"])
def facts(request, tiny_models):
    return base.read_facts(base.read_config(model_files.locate(str(tiny_models(request.param)))), 4)


def made(name):
    return adapters.find(name)(adapters.find(name).Options())


@WITH_A_SIZE
@pytest.mark.parametrize("share", [0.0, 0.7, 3.0])
def test_no_other_size_comes_nearer(name, share, facts):
    method = made(name)
    wanted = int(method.trainable(facts) * share)
    chosen = method.sized(facts, wanted)
    value = getattr(chosen, method.size)
    error = abs(type(method)(chosen).trainable(facts) - wanted)
    nearby = {*range(max(1, value - 12), value + 13), *range(1, 260, 7)} & set(method.sizes)
    others = [method.at_size(size) for size in nearby]
    assert all(abs(m.trainable(facts) - wanted) >= error for m in others if m.refusal(facts, PLAIN) is None)


@WITH_A_SIZE
def test_a_method_is_as_large_as_itself(name, facts):
    method = made(name)
    chosen = method.sized(facts, method.trainable(facts))
    assert type(method)(chosen).trainable(facts) == method.trainable(facts)
    assert type(method)(chosen).refusal(facts, PLAIN) is None


def test_the_other_options_stay(facts):
    kind = adapters.find("lora")
    method = kind(kind.Options(r=8, lora_dropout=0.25, use_rslora=True))
    assert method.sized(facts, 5).model_dump(exclude={"r"}) == method.options.model_dump(exclude={"r"})


def test_adalora_keeps_the_share_of_ranks_that_stay(facts):
    method = made("adalora")
    chosen = method.sized(facts, 2 * method.trainable(facts))
    assert (chosen.init_r, chosen.target_r) == (24, 16)


@pytest.mark.parametrize("name", ["ia3", "ln_tuning", "full", "none", "road"])
def test_a_method_without_a_size_keeps_its_options(name, facts):
    assert made(name).sized(facts, 1000) is None
