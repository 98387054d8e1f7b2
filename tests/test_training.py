"""The training engine: exact losses, honest failures, and the best weights at the end.

References are a loss written out by hand, torch's own optimizer, and the same training done another way.
"""

from __future__ import annotations

import math

import pytest
import torch
from training_runs import OPTIONS, Log, attaching, make_rows, naive_loss, ordered, train

from inlay.adapters import Adapted
from inlay.eval import MeasurementError
from inlay.tuner.data.prepared import TrainingRow
from inlay.tuner.problems import AnswerNo
from inlay.tuner.training.engine import Validation
from inlay.tuner.training.loss import sum_loss
from inlay.tuner.training.rows import Collator


@pytest.fixture
def attach(tiny_models):
    return attaching(tiny_models)


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


def test_validation_without_patience_keeps_the_last_weights(attach):
    adapted = attach()
    script = Script(adapted, [1.0, 9.0, 3.0])
    done = train(adapted, validation=Validation(script, "loss", False, 2, None), max_steps=6)
    assert (done.best_step, done.steps, done.stopped_early) == (None, 6, False)
    assert all(torch.equal(tensor, script.states[-1][name]) for name, tensor in adapted.state().items())


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
    sum_loss(adapted.model, batch).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted.model.parameters() if p.requires_grad)


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt"])
def test_the_head_computes_label_tokens_alone_and_the_loss_is_that_of_all_logits(attach, method):
    """Of a large vocabulary, logits of prompts and pads would be most of the memory of a step."""
    adapted = attach(method)
    batch = Collator(make_rows(), 1, None)([0, 3, 5])
    seen = []
    head = adapted.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[:-1].numel()))
    loss = sum_loss(adapted.model, batch)
    handle.remove()
    labels = batch["labels"]
    wanted = labels != -100
    assert seen == [int(wanted.sum())]
    assert seen[0] < wanted.numel() / 2
    output = adapted.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    logits = output.logits[:, -labels.shape[1] :].transpose(1, 2)
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
