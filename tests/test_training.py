"""The training engine: exact losses, honest failures, and nothing that an option asks for is left undone.

References are a loss written out here, torch's and transformers' own optimizer and schedules, and the same training
done another way.
"""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from inlay import adapters
from inlay.adapters import Adapted
from inlay.eval import MeasurementError
from inlay.tuner import base, model_files
from inlay.tuner.data.prepared import TrainingRow
from inlay.tuner.problems import AnswerNo, MachineError
from inlay.tuner.recipe import Train
from inlay.tuner.records import TrainRow
from inlay.tuner.signals import StopRequest
from inlay.tuner.training import engine
from inlay.tuner.training.engine import Listener, Trained, Validation
from inlay.tuner.training.rows import Collator, Order

OPTIONS = {
    "lora": {"r": 4, "lora_dropout": 0.0},
    "prefix": {"num_virtual_tokens": 5},
    "bottleneck": {"bottleneck_size": 8},
    "full": {},
}
EXACT = {"max_steps": 4, "micro_batch_size": 8, "log_steps": 1, "learning_rate": 1e-2, "warmup_ratio": 0.0}


class Log(Listener):
    """Keeps what it hears; `at` maps a step to what is to be done after it."""

    def __init__(self, at=None) -> None:
        self.rows: list[TrainRow] = []
        self.at = at or {}

    def logged(self, row: TrainRow) -> None:
        self.rows.append(row)

    def stepped(self, step: int, steps: int, loss: float | None, tokens_per_second: float) -> None:
        self.at.get(step, lambda: None)()

    @property
    def losses(self) -> list[float]:
        return [row.loss for row in self.rows]


def make_rows(count: int = 13, *, seq2seq: bool = False) -> list[TrainingRow]:
    """Rows of 2 to 25 tokens; the first part of each is not trained on."""
    draw = random.Random(7)
    rows = []
    for i in range(count):
        ids = tuple(draw.randrange(5, 400) for _ in range(2 + i * 23 // max(count - 1, 1)))
        start = draw.randrange(0, len(ids) - 1)
        source = ids[: len(ids) // 2 + 1] if seq2seq else ()
        rows.append(TrainingRow(f"row{i}", ids, tuple(j > start for j in range(len(ids))), source))
    return rows


@pytest.fixture
def attach(tiny_models):
    """A function (method, shape, bits, seed, options) -> adapter on a fresh base."""

    def make(method: str = "lora", shape: str = "llama", *, bits: int = 32, seed: int = 0, **options) -> Adapted:
        kind = adapters.find(method)
        chosen = kind(kind.Options(**{**OPTIONS[method], **options}))
        files = model_files.locate(str(tiny_models(shape)))
        facts = base.read_facts(base.read_config(files), bits)
        floats = chosen.targets(facts) if chosen.needs_float_weights else ()
        opened = base.open_base(
            files,
            base.Quantization(bits=bits, compute_dtype="fp32"),
            facts,
            base.read_tokenizer(files),
            float_targets=floats,
        )
        return chosen.attach(opened.model, facts, seed=seed)

    return make


def train(adapted: Adapted, rows=None, *, log=None, validation=None, seed=0, stop=None, **options) -> Trained:
    chosen = Train(**{**EXACT, **options})
    return engine.train(
        adapted,
        make_rows() if rows is None else rows,
        chosen,
        seed=seed,
        learning_rate=chosen.learning_rate,
        pad_id=1,
        start_id=1 if rows and rows[0].source else None,
        device="cpu",
        validation=validation,
        listener=log or Log(),
        stop=stop or StopRequest(),
    )


def naive_loss(model: torch.nn.Module, rows: list[TrainingRow]) -> float:
    """The mean over all label tokens, row by row, token by token, without a batch."""
    nats, labels = 0.0, 0
    with torch.no_grad():
        for row in rows:
            scores = model(input_ids=torch.tensor([row.ids])).logits[0, -len(row.ids) :]
            for position in range(1, len(row.ids)):
                if row.trained[position]:
                    nats -= torch.log_softmax(scores[position - 1].double(), -1)[row.ids[position]].item()
                    labels += 1
    return nats / labels


def ordered(rows: list[TrainingRow], seed: int = 0) -> list[TrainingRow]:
    return [rows[i] for i in Order(len(rows), seed)]


@pytest.fixture
def plain_descent(monkeypatch):
    """AdamW steps by the gradient alone. AdamW's own step divides by the gradient's size, which makes a whole step of
    a gradient that is nothing but rounding."""

    def step(self, closure=None) -> None:
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.sub_(group["lr"] * parameter.grad)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)


@pytest.mark.parametrize("method", OPTIONS)
def test_s1_accum_equivalence(method, attach, plain_descent):
    """Two epochs of 13 rows: windows of 8 and 5 rows, cut into micro-batches in three ways.

    fp32 rounds each weight to 6e-8 of its size, four times; the weights move by more than a thousandth of theirs.
    """
    rows, states, logs = make_rows(), [], []
    for micro, windows in ((8, 1), (4, 2), (1, 8)):
        adapted, log = attach(method), Log()
        first = naive_loss(adapted.model.eval(), ordered(rows)[:8])
        cut = {"micro_batch_size": micro, "gradient_accumulation_steps": windows, "learning_rate": 0.1}
        done = train(adapted, rows, log=log, **cut)
        assert log.losses[0] == pytest.approx(first, rel=1e-5)
        assert (done.steps, done.rows_seen) == (4, 26)
        assert done.trained_tokens == 2 * sum(row.labels for row in rows)
        assert done.tokens == 2 * sum(len(row.ids) for row in rows)
        states.append(torch.cat([tensor.flatten() for tensor in adapted.state().values()]).double())
        logs.append(log.losses)
    start = torch.cat([tensor.flatten() for tensor in attach(method).state().values()]).double()
    size = states[0].norm()
    assert (states[0] - start).norm() / size > 1e-3
    for state, losses in zip(states[1:], logs[1:], strict=True):
        assert (state - states[0]).norm() / size < 1e-6
        assert losses == pytest.approx(logs[0], rel=1e-5)


def test_s1_one_step_is_that_of_the_plain_mean_loss(attach):
    """The adapter after a step is what torch's AdamW makes of the gradient of the mean over the window's labels."""
    rows = make_rows(8)
    one, two = attach(), attach()
    train(one, rows, max_steps=1, micro_batch_size=2, gradient_accumulation_steps=4, max_grad_norm=1000)
    two.model.train()
    optimizer = torch.optim.AdamW([p for p in two.model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    labels = 0
    total = torch.zeros(())
    for row in rows:
        scores = two.model(input_ids=torch.tensor([row.ids])).logits[0, :-1]
        wanted = torch.tensor(row.trained[1:])
        target = torch.tensor(row.ids[1:])
        total = total + torch.nn.functional.cross_entropy(scores[wanted], target[wanted], reduction="sum")
        labels += int(wanted.sum())
    (total / labels).backward()
    optimizer.step()
    for name, tensor in two.state().items():
        torch.testing.assert_close(one.state()[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_first_loss_of_an_encoder_and_decoder_is_the_mean_over_the_answer(method, attach):
    rows, adapted, log = make_rows(6, seq2seq=True), attach(method, "t5"), Log()
    nats, labels = 0.0, 0
    with torch.no_grad():
        for row in rows:
            scores = adapted.model.eval()(
                input_ids=torch.tensor([row.source]), decoder_input_ids=torch.tensor([[1, *row.ids[:-1]]])
            ).logits[0, -len(row.ids) :]
            for position, on in enumerate(row.trained):
                if on:
                    nats -= torch.log_softmax(scores[position].double(), -1)[row.ids[position]].item()
                    labels += 1
    train(adapted, rows, log=log, max_steps=1, micro_batch_size=2, gradient_accumulation_steps=3)
    assert log.losses == [pytest.approx(nats / labels, rel=1e-5)]


def test_s2_padding_is_no_label_and_an_end_that_is_the_padding_token_is():
    rows = [TrainingRow("a", (7, 8, 0), (False, True, True)), TrainingRow("b", (7, 0), (False, True))]
    batch = Collator(rows, 0, None)([0, 1])
    assert batch["labels"].tolist() == [[8, 0, -100], [0, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def poison(adapted: Adapted):
    def spoil() -> None:
        with torch.no_grad():
            next(p for p in adapted.model.parameters() if p.requires_grad).fill_(math.nan)

    return spoil


def test_s15_f6_nan_stops_run(attach):
    adapted = attach()
    log = Log({2: poison(adapted)})
    rows = make_rows(32)
    with pytest.raises(AnswerNo) as caught:
        train(adapted, rows, log=log, max_steps=4, micro_batch_size=4)
    message = caught.value.problems[0].message
    assert caught.value.exit_code == 1
    assert "the loss is not finite at step 3" in message
    assert all(f"{row.id}" in message for row in ordered(rows)[8:12])
    assert [row.step for row in log.rows] == [1, 2]
    assert all(loss > 0 for loss in log.losses)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_s15_f6_nan_gradient_stops_run(attach, value):
    adapted, log, rows = attach(), Log(), make_rows(32)
    parameter = [p for p in adapted.model.parameters() if p.requires_grad][-1]
    log.at[2] = lambda: parameter.register_hook(lambda grad: torch.full_like(grad, value))
    with pytest.raises(AnswerNo) as caught:
        train(adapted, rows, log=log, micro_batch_size=2, gradient_accumulation_steps=2)
    message = caught.value.problems[0].message
    assert "the gradient is not finite at step 3" in message
    assert all(row.id in message for row in ordered(rows)[8:12])
    assert len(log.rows) == 2
    assert all(tensor.isfinite().all() for tensor in adapted.state().values())


@pytest.mark.parametrize("measure", [lambda: {"loss": math.nan}, "fails"])
def test_s15_a_validation_that_is_not_finite_stops_run(attach, measure):
    def fails():
        raise MeasurementError("the answer of row 7 has no finite likelihood")

    validation = Validation(fails if measure == "fails" else measure, "loss", False, 2, None)
    with pytest.raises(AnswerNo) as caught:
        train(attach(), validation=validation)
    assert "step 2" in caught.value.problems[0].message


class Script:
    """A validation that reads its values from a list, keeps the weights that it saw, and draws random numbers."""

    def __init__(self, adapted: Adapted, values: list[float]) -> None:
        self.adapted, self.values, self.states = adapted, iter(values), []

    def __call__(self) -> dict[str, float]:
        self.states.append(self.adapted.state())
        return {"loss": next(self.values)}


@pytest.mark.parametrize(
    ("higher", "values", "patience", "best", "steps"),
    [
        (False, [3.0, 2.0, 2.5, 2.0, 1.0, 9.0], 2, 4, 8),
        (False, [3.0, 2.0, 2.5, 1.0, 1.5, 1.2], 2, 8, 12),
        (True, [3.0, 2.0, 2.5, 9.0], 1, 2, 4),
        (True, [1.0, 2.0, 2.5, 9.0, 3.0, 3.0], None, 8, 12),
    ],
)
def test_early_stopping_puts_the_best_weights_back(attach, higher, values, patience, best, steps):
    adapted = attach()
    script, log = Script(adapted, values), Log()
    done = train(
        adapted, log=log, validation=Validation(script, "loss", higher, 2, patience), max_steps=12, log_steps=100
    )
    assert (done.best_step, done.steps, done.stopped_early) == (best, steps, steps < 12)
    for name, tensor in adapted.state().items():
        assert torch.equal(tensor, script.states[best // 2 - 1][name])
    assert any(not torch.equal(t, script.states[-1][n]) for n, t in adapted.state().items()) or best == steps
    shown = {row.step: row.validation for row in log.rows if row.validation}
    assert shown == {2 * i + 2: {"loss": value} for i, value in enumerate(values[: steps // 2])}


def test_the_last_step_is_validated_and_logged(attach):
    adapted, log = attach(), Log()
    script = Script(adapted, [1.0, 2.0])
    done = train(adapted, log=log, validation=Validation(script, "loss", False, 4, None), max_steps=5, log_steps=100)
    assert [row.step for row in log.rows] == [1, 4, 5]
    assert done.last_loss == log.losses[-1]
    log = Log()
    train(attach(), log=log, max_steps=5, log_steps=3)
    assert [row.step for row in log.rows] == [1, 3, 5]


@pytest.mark.parametrize("bits", [32, 4])
def test_s23_validation_does_not_change_training(attach, bits):
    """An evaluation between steps leaves losses, gradients and the training mode as they were, bit for bit."""
    logs = []
    for validated in (False, True):
        adapted, log = attach(bits=bits), Log()

        def measure(adapted=adapted) -> dict[str, float]:
            adapted.model.eval()
            loss = naive_loss(adapted.model, make_rows(4))
            adapted.model.train()
            return {"loss": loss}

        train(adapted, log=log, validation=Validation(measure, "loss", False, 1, None) if validated else None)
        logs.append(log.losses)
    assert logs[0] == logs[1]
    batch = Collator(make_rows(), 1, None)([3, 4])
    adapted.model.zero_grad()
    adapted.model.train()
    engine.sum_loss(adapted.model, batch).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted.model.parameters() if p.requires_grad)


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
