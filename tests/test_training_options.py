"""What a recipe's training options ask for is done: seeds, schedules, decay, clipping, noise, checkpointing, stopping.

References are transformers' schedules, torch's arithmetic, and the same training without the option.
"""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from training_runs import Log, attaching, train

from inlay.adapters import Adapted
from inlay.tuner.problems import MachineError
from inlay.tuner.signals import StopRequest
from inlay.tuner.training.engine import Validation
from inlay.tuner.training.rows import Order


@pytest.fixture
def attach(tiny_models):
    return attaching(tiny_models)


def test_seeds_reach_order_start_and_dropout(attach):
    def losses(seed: int, *, dropout: float = 0.5, noise: int = 0, attach_seed: int | None = None) -> list[float]:
        adapted, log = attach(seed=seed if attach_seed is None else attach_seed, lora_dropout=dropout), Log()
        torch.rand(noise)
        random.seed(noise)
        train(adapted, log=log, seed=seed)
        return log.losses

    assert losses(0) == losses(0, noise=3)
    assert losses(0) != losses(1)
    assert losses(0)[1:] != losses(0, dropout=0.0)[1:]  # the first step of LoRA is the base's whatever is dropped
    assert list(Order(13, 0)) != list(Order(13, 1))
    one, two = attach(seed=0).state(), attach(seed=1).state()
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_each_epoch_has_an_order_of_its_own_and_every_row_once():
    order = Order(13, 0)
    first, random_draw, second = list(order), random.random(), list(order)
    assert sorted(first) == sorted(second) == list(range(13))
    assert first != second
    random.seed(random_draw)
    again = Order(13, 0)
    assert [list(again), list(again)] == [first, second]


@pytest.mark.parametrize("warmup", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("name", ["linear", "cosine", "constant_with_warmup"])
def test_learning_rates_are_those_of_transformers(attach, name, warmup):
    from transformers import get_scheduler

    log, steps = Log(), 8
    train(attach(), log=log, lr_scheduler=name, warmup_ratio=warmup, max_steps=steps, micro_batch_size=1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    schedule = get_scheduler(name, optimizer, math.ceil(warmup * steps), steps)
    expected = []
    for _ in range(steps):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert [row.learning_rate for row in log.rows] == pytest.approx(expected, abs=1e-12)


def test_weight_decay_pulls_every_weight_to_zero(attach):
    """Decoupled: one step with decay differs from one without by learning rate x decay x weight."""
    start, plain, decayed = attach(), attach(), attach()
    train(plain, max_steps=1)
    train(decayed, max_steps=1, weight_decay=0.5)
    for name, tensor in start.state().items():
        difference = plain.state()[name] - decayed.state()[name]
        torch.testing.assert_close(difference, 1e-2 * 0.5 * tensor, rtol=1e-3, atol=1e-6)


def test_gradients_are_clipped(attach):
    """The norm before clipping is logged, and the optimizer sees gradients of the norm asked for."""
    norms: list[float] = []
    for limit in (1000.0, 1e-3):
        adapted, log = attach(), Log()
        seen: list[float] = []

        def note(optimizer, args, kwargs, seen=seen) -> None:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            seen.append(torch.cat([grad.flatten() for grad in grads]).norm().item())

        hook = register_optimizer_step_pre_hook(note)
        try:
            train(adapted, log=log, max_steps=1, max_grad_norm=limit)
        finally:
            hook.remove()
        norms.append(log.rows[0].grad_norm)
        assert seen == [pytest.approx(min(limit, norms[-1]), rel=1e-3)]
    assert norms[0] == norms[1] > 1e-3


def embedded(adapted: Adapted) -> torch.Tensor:
    with torch.no_grad():
        return adapted.inner.get_input_embeddings()(torch.tensor([[5, 6, 7]]))


@pytest.mark.parametrize(("method", "shape"), [("lora", "llama"), ("prefix", "gpt2")])
def test_neftune_adds_noise_in_training_only(attach, method, shape):
    """Noise of at most alpha / sqrt(tokens x width), gone in evaluation mode and after training."""
    alpha, widest = 5.0, []
    adapted = attach(method, shape)
    plain = embedded(adapted)

    def look() -> dict[str, float]:
        adapted.model.eval()
        assert torch.equal(embedded(adapted), plain)
        adapted.model.train()
        widest.append((embedded(adapted) - plain).abs().max().item())
        return {"loss": 1.0}

    log, quiet = Log(), Log()
    train(adapted, log=log, validation=Validation(look, "loss", False, 1, None), neftune_noise_alpha=alpha)
    bound = alpha / math.sqrt(3 * plain.shape[-1])
    assert all(0.5 * bound < width <= bound for width in widest)
    adapted.model.train()
    assert torch.equal(embedded(adapted), plain)
    train(attach(method, shape), log=quiet)
    assert log.losses[0] != quiet.losses[0]


@pytest.mark.parametrize(
    ("method", "shape", "bits"), [("lora", "llama", 32), ("lora", "gpt2", 4), ("full", "llama", 32)]
)
def test_gradient_checkpointing_gives_the_same_losses(attach, method, shape, bits):
    logs = []
    for checkpointing in (False, True):
        adapted, log = attach(method, shape, bits=bits), Log()
        train(adapted, log=log, gradient_checkpointing=checkpointing)
        assert not any(getattr(module, "gradient_checkpointing", False) for module in adapted.model.modules())
        logs.append(log.losses)
    assert logs[0] == pytest.approx(logs[1], rel=1e-6)


def test_a_stop_ends_training_after_the_step_in_hand(attach):
    stop, log = StopRequest(), Log()
    log.at[2] = lambda: setattr(stop, "asked", True)
    done = train(attach(), log=log, stop=stop, max_steps=9)
    assert done.steps == 3
    assert [row.step for row in log.rows] == [1, 2, 3]


def test_f7_out_of_memory_says_what_to_lower(attach):
    adapted, log = attach(), Log()

    def explode() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")

    log.at[2] = explode
    with pytest.raises(MachineError) as caught:
        train(adapted, log=log, gradient_accumulation_steps=3)
    [problem] = caught.value.problems
    assert problem.message == "out of memory in training: CUDA out of memory. Tried to allocate 9 GiB."
    assert problem.help.endswith("train.micro_batch_size: 4, train.gradient_accumulation_steps: 6")


def test_peak_memory_is_that_of_the_phase():
    from inlay.tuner.meter import PeakMemory

    with PeakMemory("cpu") as large:
        block = torch.ones(64 * 2**20 // 4)
    del block
    with PeakMemory("cpu") as small:
        torch.ones(1)
    assert large.bytes - small.bytes > 32 * 2**20
