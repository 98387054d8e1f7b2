"""Taking an adapter off its base, held on every method in the folder."""

from __future__ import annotations

import method_cases
import pytest
import torch
from method_cases import Case, contract, logits, train, trainable


@pytest.fixture(scope="session")
def open_base(tiny_models):
    return method_cases.opening(tiny_models)


def tree(model: torch.nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


def hooks(model: torch.nn.Module) -> list[str]:
    """The modules on which someone listens, or whose own forward was replaced."""
    return [
        name
        for name, module in model.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or "forward" in vars(module)
    ]


@contract()
def test_a_detached_base_is_as_it_was_opened(case, open_base):
    opened = open_base(case)
    before, heard, known = tree(opened.model), hooks(opened.model), set(vars(opened.model))
    bytes_before = {name: tensor.clone() for name, tensor in opened.model.state_dict().items()}
    adapted = case.method.attach(opened.model, opened.facts, seed=0, steps=50)
    if trainable(adapted):
        train(case, adapted, 2)
    found = adapted.detach()
    assert found is opened.model
    assert torch.equal(logits(case, found), logits(case, open_base(case).model))
    assert (tree(found), hooks(found)) == (before, heard)
    assert not {name for name in set(vars(found)) - known if "peft" in name}
    after = found.state_dict()
    assert list(after) == list(bytes_before)
    assert all(after[name].dtype == t.dtype and torch.equal(after[name], t) for name, t in bytes_before.items())
    assert not [name for name, weight in found.named_parameters() if weight.requires_grad or weight.grad is not None]
    assert not [name for name, module in found.named_modules() if module.training]


@contract("none")
@pytest.mark.parametrize(
    "following", ["itself", "prefix", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lora", "bottleneck"))]
)
def test_the_next_method_starts_as_on_a_fresh_base(case, following, open_base):
    opened = open_base(case)
    adapted = case.method.attach(opened.model, opened.facts, seed=0, steps=50)
    train(case, adapted, 2)
    second = case if following == "itself" else Case(following, (), case.shape, case.bits)
    found = second.method.attach(adapted.detach(), opened.facts, seed=3, steps=50)
    fresh = second.method.attach(open_base(case).model, opened.facts, seed=3, steps=50)
    assert train(second, found, 2) == train(second, fresh, 2)
    state, expected = found.state(), fresh.state()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
