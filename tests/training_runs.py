"""Small trainings for the tests: rows, adapters on tiny bases, and the engine with what it told."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from inlay import adapters
from inlay.adapters import Adapted
from inlay.tuner import base, model_files
from inlay.tuner.data.prepared import TrainingRow
from inlay.tuner.recipe import Train
from inlay.tuner.records import TrainRow
from inlay.tuner.signals import StopRequest
from inlay.tuner.training import engine
from inlay.tuner.training.engine import Listener, Trained
from inlay.tuner.training.rows import Order

OPTIONS = {
    "lora": {"r": 4, "lora_dropout": 0.0},
    "prefix": {"num_virtual_tokens": 5},
    "bottleneck": {"bottleneck_size": 8},
    "adalora": {"init_r": 6, "target_r": 2},
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


def attaching(tiny_models: Callable[..., Path]) -> Callable[..., Adapted]:
    """A function (method, shape, bits, seed, options) -> adapter on a fresh base."""

    def make(
        method: str = "lora", shape: str = "llama", *, bits: int = 32, seed: int = 0, steps: int = 50, **options
    ) -> Adapted:
        kind = adapters.find(method)
        chosen = kind(kind.Options(**{**OPTIONS.get(method, {}), **options}))
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
        return chosen.attach(opened.model, facts, seed=seed, steps=steps)

    return make


def train(
    adapted: Adapted, rows=None, *, log=None, validation=None, seed=0, stop=None, flat=False, **options
) -> Trained:
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
        folder=Path(tempfile.gettempdir()),
        name="tiny",
        flat=flat,
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
