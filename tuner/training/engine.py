"""The training engine: transformers.Trainer with our own rows, order, loss and watch over what goes wrong.

The loss of an optimizer step is the sum over its label tokens divided by their number, however the step is cut into
micro-batches. A loss or gradient that is not finite stops training with the step and the rows that caused it.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from inlay.adapters import Adapted
from inlay.eval import MeasurementError
from inlay.tuner.data.prepared import TrainingRow
from inlay.tuner.meter import PeakMemory
from inlay.tuner.problems import AnswerNo, MachineError, Problem
from inlay.tuner.recipe import Train
from inlay.tuner.records import TrainRow
from inlay.tuner.signals import StopRequest
from inlay.tuner.training.flat import attending, flattened
from inlay.tuner.training.loss import computes_alike, sum_loss
from inlay.tuner.training.rows import IGNORED, Collator, Order
from inlay.tuner.training.trackers import followed


@dataclass(frozen=True)
class Validation:
    """What is measured while training: `measure` returns named numbers, of which `metric` decides.

    Without `patience` they are only logged; with it, training stops after so many validations without a gain, and the
    weights of the best one are put back. `poor` is asked after each validation, with its number from 1, whether to
    give up.
    """

    measure: Callable[[], Mapping[str, float]]
    metric: str
    higher_is_better: bool
    every: int
    patience: int | None
    poor: Callable[[Mapping[str, float], int], bool] | None = None


@dataclass(frozen=True)
class Trained:
    """What training did; `inlay.tuner.records.TrainRecord` explains the numbers."""

    steps: int
    rows_seen: int
    tokens: int
    trained_tokens: int
    seconds: float
    peak_bytes: int
    first_loss: float | None
    last_loss: float | None
    best_step: int | None
    stopped_early: bool


@dataclass
class Seen:
    """What has gone through the model so far; `step_rows`: the ids of the rows of the step in hand."""

    rows: int = 0
    tokens: int = 0
    labels: int = 0
    step_rows: list[str] = field(default_factory=list)


class Listener:
    """Hears of training as it goes: a logged step, and every step for a progress line."""

    def logged(self, row: TrainRow) -> None:
        """A line of the log."""

    def stepped(self, step: int, steps: int, loss: float | None, tokens_per_second: float) -> None:
        """A finished optimizer step; `loss` is the last logged one, in nats per label token."""


def train(
    adapted: Adapted,
    rows: Sequence[TrainingRow],
    options: Train,
    *,
    seed: int,
    learning_rate: float,
    pad_id: int,
    start_id: int | None,
    device: str,
    validation: Validation | None,
    listener: Listener,
    stop: StopRequest,
    folder: Path,
    name: str,
    flat: bool,
) -> Trained:
    """Trains the adapter's weights in place; with a validation, the best weights are put back at the end.

    Args:
        rows: all training rows; their order is drawn from `seed`.
        options: of the recipe; `learning_rate` has been resolved from it and the method.
        pad_id: fills up batches.
        start_id: first token of a sequence-to-sequence decoder, None for a causal model.
        stop: ends training after the step in hand when asked.
        folder: the run's; trackers that write files write them there.
        name: what trackers call it, together with the time: each training is a run of its own there.
        flat: rows may be laid one behind the other: see `inlay.tuner.training.flat`.

    Raises:
        AnswerNo: the loss, a gradient or a validated number is not finite.
        MachineError: memory did not suffice.
    """
    seen = Seen()
    watch = _Watch(adapted, seen, validation, listener, stop)
    collate = Collator(rows, pad_id, start_id)
    with PeakMemory(device) as peak, followed(options.report_to), _explained_memory(options):
        apart = flat and computes_alike(adapted, collate(Order(len(rows), seed).first(options.micro_batch_size)))
        trainer = _Engine(
            model=adapted.model,
            args=_arguments(options, folder, name, seed, learning_rate, device),
            train_dataset=range(len(rows)),
            data_collator=(lambda indices: flattened(collate(indices))) if apart else collate,
            callbacks=[watch],
        )
        trainer.attach_rows(adapted, rows, seed, seen, apart)
        trainer.remove_callback(PrinterCallback)  # stdout is for the answer
        with _checkpointed(adapted.model, options), _noisy(adapted, options):
            trainer.train()
    best_step = watch.restore_best()
    return Trained(
        steps=trainer.state.global_step,
        rows_seen=seen.rows,
        tokens=seen.tokens,
        trained_tokens=seen.labels,
        seconds=watch.seconds,
        peak_bytes=peak.bytes,
        first_loss=watch.losses[0] if watch.losses else None,
        last_loss=watch.losses[-1] if watch.losses else None,
        best_step=best_step,
        stopped_early=watch.stopped_early,
    )


class _Engine(Trainer):
    """A Trainer whose loss is a sum over labels divided by the labels of the whole optimizer step."""

    def attach_rows(
        self, adapted: Adapted, rows: Sequence[TrainingRow], seed: int, seen: Seen, apart: bool
    ) -> None:
        self.adapted, self.rows, self.order, self.seen = adapted, rows, Order(len(rows), seed), seen
        self.attending = attending if apart else contextlib.nullcontext
        self.model_accepts_loss_kwargs = True  # the loss is already divided: Trainer must not divide it again

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        return self.order

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, int]:
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        self.micro_batches = len(batches)
        return batches, sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)

    def training_step(self, model: nn.Module, *arguments: Any) -> Tensor:
        with self.attending(self.adapted.inner):  # until the backward pass is done: checkpointing attends again in it
            return super().training_step(model, *arguments)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        loss = sum_loss(model, inputs) / num_items_in_batch
        rows = [self.rows[i] for i in inputs["rows"].tolist()]
        if not math.isfinite(float(loss.detach())):
            raise _diverged("the loss", self.state.global_step + 1, [row.id for row in rows])
        self.seen.step_rows += [row.id for row in rows]
        self.seen.rows += len(rows)
        self.seen.tokens += sum(len(row.ids) + len(row.source) for row in rows)
        self.seen.labels += sum(row.labels for row in rows)
        penalty = self.adapted.penalty()
        if penalty is None:
            return loss
        # Once a step, however it is cut; in the gradient alone, so that logged losses of methods can be compared.
        return loss + (penalty - penalty.detach()) / self.micro_batches

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # an estimate that nobody reads


class _Watch(TrainerCallback):
    """Times steps, logs, validates, stops; and refuses a gradient that is not finite."""

    def __init__(
        self,
        adapted: Adapted,
        seen: Seen,
        validation: Validation | None,
        listener: Listener,
        stop: StopRequest,
    ) -> None:
        self.adapted, self.seen, self.validation, self.listener, self.stop = adapted, seen, validation, listener, stop
        self.seconds = self._begun = 0.0
        self.losses: list[float] = []
        self.stopped_early = False
        self._best: tuple[float, int, dict[str, Tensor]] | None = None
        self._measured: dict[str, float] = {}

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._begun = time.perf_counter()
        self.seen.step_rows = []

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        gradients = [p.grad for p in self.adapted.model.parameters() if p.grad is not None]
        if not torch.nn.utils.get_total_norm(gradients).isfinite():
            raise _diverged("the gradient", state.global_step + 1, self.seen.step_rows)

    def on_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.adapted.after_step(state.global_step + 1)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        self.seconds += time.perf_counter() - self._begun
        control.should_training_stop = control.should_training_stop or self.stop.asked
        if self.validation and (state.global_step % self.validation.every == 0 or state.global_step == state.max_steps):
            self._validate(state, control)
            control.should_log = True
        control.should_log = control.should_log or control.should_training_stop  # the last step is always logged
        loss = self.losses[-1] if self.losses else None
        self.listener.stepped(state.global_step, state.max_steps, loss, self.seen.tokens / self.seconds)
        return control

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self.losses.append(float(logs["loss"]))
        self.listener.logged(
            TrainRow(
                step=state.global_step,
                epoch=round(float(state.epoch or 0), 4),
                loss=self.losses[-1],
                learning_rate=float(logs["learning_rate"]),
                grad_norm=float(logs["grad_norm"]),
                tokens=self.seen.tokens,
                seconds=self.seconds,
                validation=self._measured,
            )
        )
        self._measured = {}

    def _validate(self, state: TrainerState, control: TrainerControl) -> None:
        assert self.validation is not None
        step = state.global_step
        try:
            self._measured = dict(self.validation.measure())
        except MeasurementError as error:
            raise AnswerNo(f"the validation after step {step} could not be measured: {error}") from error
        for name, number in self._measured.items():
            if not math.isfinite(number):
                raise _diverged(f"{name} on the validation rows", step, [])
        poor, number = self.validation.poor, -(-step // self.validation.every)
        if poor and poor(self._measured, number):
            control.should_training_stop = True
            self.stopped_early = step < state.max_steps
        patience = self.validation.patience
        if patience is None:
            return
        value = self._measured[self.validation.metric]
        sign = 1 if self.validation.higher_is_better else -1
        if self._best is None or sign * value > sign * self._best[0]:
            self._best = (value, step, self.adapted.state())
        if step - self._best[1] >= patience * self.validation.every:
            control.should_training_stop = True
            self.stopped_early = step < state.max_steps

    def restore_best(self) -> int | None:
        """Puts the best validated weights back; the step they are from."""
        if self._best is None:
            return None
        self.adapted.load_state(self._best[2])
        return self._best[1]


def _arguments(
    options: Train, folder: Path, name: str, seed: int, learning_rate: float, device: str
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        run_name=f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
        seed=seed,
        per_device_train_batch_size=options.micro_batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        max_steps=options.max_steps or -1,
        num_train_epochs=options.epochs or 1,
        learning_rate=learning_rate,
        lr_scheduler_type=options.lr_scheduler,
        # Below 1 it is a share of the steps; from 1 on Trainer would read it as a number of them.
        warmup_steps=min(options.warmup_ratio, math.nextafter(1, 0)),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        logging_steps=options.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=list(options.report_to),
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        remove_unused_columns=False,
        save_strategy="no",
        disable_tqdm=True,
        bf16=False,
    )
    # Trainer multiplies the micro-batch by the visible GPUs and splits it over them; a run is of one device.
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


@contextlib.contextmanager
def _checkpointed(model: nn.Module, options: Train) -> Iterator[None]:
    """Activation checkpointing, non-reentrant: the reentrant kind needs inputs that require gradients."""
    if not options.gradient_checkpointing:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        try:
            yield
        finally:
            model.gradient_checkpointing_disable()


@contextlib.contextmanager
def _noisy(adapted: Adapted, options: Train) -> Iterator[None]:
    """NEFTune (Jain et al. 2023): uniform noise of +-alpha / sqrt(tokens x width) on the embeddings, in training."""
    alpha = options.neftune_noise_alpha
    if alpha is None:
        yield
        return

    def add_noise(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        if not module.training:
            return output
        size = alpha / math.sqrt(output.shape[-2] * output.shape[-1])
        return output + torch.empty_like(output).uniform_(-size, size)

    handle = adapted.inner.get_input_embeddings().register_forward_hook(add_noise)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _explained_memory(options: Train) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        batch, steps = options.micro_batch_size, options.gradient_accumulation_steps
        help = (
            f"the same training with less: train.micro_batch_size: {batch // 2}, "
            f"train.gradient_accumulation_steps: {steps * 2}"
            if batch % 2 == 0
            else "set train.gradient_checkpointing: true, or train.max_length lower"
        )
        raise MachineError(f"out of memory in training: {str(error).splitlines()[0]}", help=help) from error


def _diverged(what: str, step: int, row_ids: Sequence[str]) -> AnswerNo:
    rows = f" on rows {', '.join(row_ids[:8])}" if row_ids else ""
    more = f" and {len(row_ids) - 8} more" if len(row_ids) > 8 else ""
    return AnswerNo(
        Problem(
            f"training diverged: {what} is not finite at step {step}{rows}{more}",
            path="train.learning_rate",
            help="lower train.learning_rate, or raise train.warmup_ratio",
        )
    )
