"""What a method says of itself, held by trying it: merging, conversion to LoRA, and layers that must be plain.

That it starts as the base and trains under activation checkpointing is held in test_every_method.py.
"""

from __future__ import annotations

import method_cases
import pytest
import torch
from method_cases import contract, logits, train
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora.conversion import convert_to_lora

from inlay import adapters

RANK = 32  # of the converted adapter; the smallest side of a layer of the tiny bases


@pytest.fixture(scope="session")
def open_base(tiny_models):
    return method_cases.opening(tiny_models)


@pytest.fixture
def trained(open_base):
    def trained_(case, **options):
        opened = open_base(case, **options)
        adapted = case.method.attach(opened.model, opened.facts, seed=0, steps=50)
        train(case, adapted, 3)
        return adapted

    return trained_


@contract("none", "full", bits=(32,))
def test_merges_into_the_weights_or_says_that_it_cannot(case, trained):
    adapted = trained(case)
    wanted = logits(case, adapted.model)
    if case.method.mergeable:
        torch.testing.assert_close(logits(case, adapted.model.merge_and_unload()), wanted, atol=1e-4, rtol=1e-4)
    else:
        with pytest.raises((AttributeError, ValueError, NotImplementedError)):
            adapted.model.merge_and_unload()


@contract("none", "full", "dora", bits=(32,))
def test_converts_to_lora_or_says_that_it_cannot(case, open_base, trained):
    adapted = trained(case)
    if not case.method.convertible:
        with pytest.raises((AttributeError, TypeError)):
            convert_to_lora(adapted.model, rank=RANK)
        return
    config, weights = convert_to_lora(adapted.model, rank=RANK)
    plain = open_base(case).model
    before, wanted = logits(case, plain), logits(case, adapted.model)
    converted = get_peft_model(plain, LoraConfig(**config.to_dict()))
    set_peft_model_state_dict(converted, weights)
    assert (logits(case, converted) - wanted).norm() < 0.5 * (before - wanted).norm()


@contract(*(name for name in adapters.names() if name != "dora"), bits=(32,))
def test_dora_is_not_what_peft_converts_it_to(case, open_base, trained):
    """Its trained magnitudes are lost."""
    adapted = trained(case)
    layer = adapted.inner.get_submodule(case.method.targets(open_base(case).facts)[0])
    _, weights = convert_to_lora(layer, rank=RANK)
    before = layer.get_base_layer().weight.clone()
    layer.merge()
    update = layer.get_base_layer().weight - before
    found = weights[".lora_B.weight"] @ weights[".lora_A.weight"]
    found = found if found.shape == update.shape else found.T
    assert (found - update).norm() > 0.05 * update.norm()


@contract("none", bits=(4,))
def test_quantized_layers_serve_or_are_said_to_be_no_use(case, trained):
    if case.method.needs_float_weights:
        with pytest.raises(RuntimeError):
            trained(case, as_adapted=False)
    else:
        trained(case, as_adapted=False)
