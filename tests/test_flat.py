"""Rows that are trained on one behind the other: the same losses as padded ones, and as each row's alone."""

from __future__ import annotations

import pytest
import scorables
import tiny_runs
import torch
from tiny_runs import inlay
from training_runs import Log, attaching, make_rows, naive_loss, ordered, train
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from inlay import adapters
from inlay.adapters import Adapted
from inlay.tuner.recipe import Train
from inlay.tuner.training import flat
from inlay.tuner.training.engine import Validation
from inlay.tuner.training.flat import possible
from inlay.tuner.training.loss import computes_alike
from inlay.tuner.training.rows import Collator

ROWS = make_rows()
OTHERS = ("none", "adalora")  # nothing trains; more steps than here
METHODS = [name for name in adapters.names() if adapters.find(name).prepends == "nothing" and name not in OTHERS]


@pytest.fixture
def attach(tiny_models):
    return attaching(tiny_models)


@pytest.fixture
def apart(monkeypatch) -> list[int]:
    """How many rows each flattened batch held."""
    seen, inner = [], flat.flattened

    def flattened(batch):
        seen.append(len(batch["rows"]))
        return inner(batch)

    for module in ("engine", "loss"):
        monkeypatch.setattr(f"inlay.tuner.training.{module}.flattened", flattened)
    return seen


def weights(adapted: Adapted) -> torch.Tensor:
    return torch.cat([tensor.flatten().float() for tensor in adapted.state().values()])


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"gradient_accumulation_steps": 2}], ids=str)
@pytest.mark.parametrize("shape", ["llama", "gpt2", "gpt_neox"])
def test_flat_rows_train_as_padded_ones(shape, options, attach, apart):
    found = {}
    for way in (False, True):
        torch.manual_seed(0)
        adapted, log = attach("lora", shape), Log()
        for module in adapted.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # GPT-2's: what is drawn for a pad is drawn for nothing else
        train(adapted, ROWS, log=log, flat=way, micro_batch_size=4, **options)
        found[way] = log.losses, weights(adapted)
        assert bool(apart) == way
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-4)
    assert torch.allclose(found[True][1], found[False][1], atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_first_loss_is_that_of_each_row_by_itself(method, attach, apart):
    adapted, log = attach(method), Log()
    wanted = naive_loss(adapted.model.eval(), ordered(ROWS)[:8])
    train(adapted, ROWS, log=log, flat=True, max_steps=1)
    assert log.losses[0] == pytest.approx(wanted, rel=1e-4)
    assert apart[:2] == [8, 8]  # one to see whether it is alike


def test_a_validation_in_between_attends_as_ever(attach, apart):
    logs = []
    for validated in (False, True):
        adapted, log = attach(), Log()

        def measure(adapted=adapted) -> dict[str, float]:
            batch = Collator(ROWS, 1, None)([2, 7])
            adapted.model.eval()
            with torch.no_grad():
                adapted.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            return {"loss": naive_loss(adapted.model, ROWS[:4])}

        train(
            adapted,
            ROWS,
            log=log,
            flat=True,
            validation=Validation(measure, "loss", False, 1, None) if validated else None,
        )
        logs.append(log.losses)
    assert logs[0] == logs[1]
    assert apart


def test_a_model_whose_rows_would_see_each_other_is_trained_on_padded_ones(attach, apart, monkeypatch):
    def leaking(module, query, key, value, attention_mask, **options):
        return sdpa_attention_forward(module, query, key, value, None, **options)

    batch, found = Collator(ROWS, 1, None)([0, 5, 9]), []
    assert computes_alike(attach(), batch)
    monkeypatch.setitem(flat.AttentionInterface._global_mapping, flat._NAME, leaking)
    assert not computes_alike(attach(), batch)
    for way in (False, True):
        adapted, log = attach(), Log()
        train(adapted, ROWS, log=log, flat=way)
        found.append((log.losses, weights(adapted)))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_a_model_that_does_not_hand_the_bounds_on_is_trained_on_padded_rows(attach, monkeypatch):
    adapted = attach()
    forward = type(adapted.inner.model).forward

    def forgetful(self, *arguments, **options):
        options.pop(flat.BOUNDS, None)
        return forward(self, *arguments, **options)

    monkeypatch.setattr(type(adapted.inner.model), "forward", forgetful)
    assert not computes_alike(adapted, Collator(ROWS, 1, None)([0, 5, 9]))
    assert adapted.inner.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("shape", "method", "options"),
    [
        ("llama", "prefix", {}),
        ("llama", "prompt", {}),
        ("llama", "lora", {"neftune_noise_alpha": 5.0}),
        ("llama", "lora", {"micro_batch_size": 1}),
        ("gemma2", "lora", {}),
        ("gpt_neo", "lora", {}),
        ("t5", "lora", {}),
    ],
    ids=str,
)
def test_what_needs_padded_rows_is_known(shape, method, options, tiny_models):
    assert possible(scorables.scorable(tiny_models("llama"), "lora"), Train(max_steps=1))
    assert not possible(scorables.scorable(tiny_models(shape), method), Train(max_steps=1, **options))


def test_a_run_trains_so(tiny_models, tmp_path, monkeypatch, apart):
    monkeypatch.chdir(tmp_path)
    recipe = tiny_runs.recipe(tiny_runs.world(tmp_path, tiny_models("llama")), "lora", "dialogue")
    code, _, err = inlay("run", recipe.name)
    assert code == 0, err
    assert set(apart) == {4}
