"""The base of a comparison: opened once, every adapter put on it and taken off again, its bytes checked in between."""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from inlay.adapters import Adapted
from inlay.eval import Decoding, Example, Text
from inlay.eval.generate import generate
from inlay.eval.likelihood import score_examples
from inlay.tuner import base as base_models
from inlay.tuner import benchmark
from inlay.tuner.base import Base
from inlay.tuner.problems import Failure, RequestError, explained
from inlay.tuner.records import OutsideRecord
from inlay.tuner.setting import Setting
from inlay.tuner.weights import fingerprint

LATENCY_TOKENS, LATENCY_REPEATS = 16, 2


class Bench:
    """The base of a comparison.

    Attributes:
        setting: of the untouched base.
        base: as opened; the adapters are put on its model.
        extra_bytes: memory that the targets of the row in hand take more as plain layers than as quantized ones.
    """

    def __init__(self, setting: Setting, texts: tuple[Text, ...]) -> None:
        self.setting = setting
        self.extra_bytes = 0
        self._texts = texts
        self._texts_base: list[float] | None = None
        self.base = self._open()
        self._fingerprint = fingerprint(self.base.model)

    def _open(self) -> Base:
        return self.setting.open_base()

    @contextlib.contextmanager
    def adapted(self, setting: Setting) -> Iterator[Adapted]:
        """The base with a fresh adapter of `setting`; afterwards the adapter is off, and the base what it was.

        Raises:
            Failure: the adapter cannot be attached.
        """
        floats = setting.method.targets(setting.facts) if setting.method.needs_float_weights else ()
        clean = False
        try:
            with base_models.plain_layers(self.base, floats) as extra:
                self.extra_bytes = extra
                adapted = setting.open_adapter(self.base, setting.recipe.seed)
                try:
                    yield adapted
                finally:
                    clean = adapted.detach() is not None
        except Exception:
            self._make_sure(clean)
            raise
        self._make_sure(clean)

    def _make_sure(self, clean: bool) -> None:
        """Opens the base afresh where its bytes are not what they were: the next row must start from the same."""
        if not clean or fingerprint(self.base.model) != self._fingerprint:
            self.base = self._open()
            if fingerprint(self.base.model) != self._fingerprint:
                raise Failure("the base does not open to the same weights twice")

    def latency(self, setting: Setting, adapted: Adapted) -> float:
        """Seconds for one generated token at batch size 1, the median of a few repeats on the longest prompt."""
        model = benchmark.scorable(setting, self.base, adapted)
        longest = max(map(self._prompt, setting.data.examples[setting.recipe.eval.split]), key=len)
        decoding = Decoding(max_new_tokens=LATENCY_TOKENS)
        seconds = []
        for _ in range(LATENCY_REPEATS + 1):  # the first warms up
            started = time.perf_counter()
            written = generate(model, [longest], decoding, stop_ids=(), batch_size=1)
            seconds.append((time.perf_counter() - started) / len(written[0]))
        return statistics.median(seconds[1:])

    def merged_latency(self) -> float | None:
        """As `latency`, of the base with plain layers everywhere: what any merged adapter costs. None where they do
        not fit into memory."""
        import torch

        with (
            contextlib.suppress(torch.OutOfMemoryError),
            base_models.plain_layers(self.base, tuple(self.setting.facts.linears)),
        ):
            found = self.setting.method.attach(self.base.model, self.setting.facts, seed=0, steps=0)
            seconds = self.latency(self.setting, found)
            found.detach()
            return seconds
        return None

    def outside(self, setting: Setting, adapted: Adapted) -> OutsideRecord | None:
        """The likelihood of texts outside the task, adapted and untouched; None where the base reads no plain text."""
        if not self._texts or setting.facts.kind == "seq2seq":
            return None
        model = benchmark.scorable(setting, self.base, adapted)
        size = setting.recipe.eval.batch_size
        if self._texts_base is None:
            with adapted.disabled():
                plain = benchmark.scorable(self.setting, self.base, adapted)
                found = score_examples(plain, self._texts, setting.renderer, batch_size=size)
            self._texts_base = [nll for nll, _ in found]
        found = score_examples(model, self._texts, setting.renderer, batch_size=size)
        scored = [text.text[len(setting.renderer.unscored(text.text)) :] for text in self._texts]
        return OutsideRecord(
            sha256=hashlib.sha256("\n".join(text.text for text in self._texts).encode()).hexdigest(),
            bytes=[len(text.encode()) for text in scored],
            nll_nats=[nll for nll, _ in found],
            base_nll_nats=self._texts_base,
        )

    def _prompt(self, example: Example) -> tuple[int, ...]:
        """What the model reads before it writes, with room for what it writes."""
        render, context = self.setting.renderer, self.setting.facts.context
        ids = render.windows(example.text)[0][1] if isinstance(example, Text) else render.prompt_ids(example.turns)
        return ids if context is None else ids[: context // 2]


def read_texts(path: Path) -> tuple[Text, ...]:
    """The rows of a .jsonl file with a `text` column.

    Raises:
        RequestError: a line is not such a row, or there are none.
    """
    found = []
    with explained(f"`{path}` is no text in UTF-8", UnicodeDecodeError):
        lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        with explained(f"{path}:{number} is no row with a `text`", ValueError, KeyError, TypeError):
            found.append(Text(f"{path.name}:{number}", str(json.loads(line)["text"])))
    if not found:
        raise RequestError(f"`{path}` holds no texts")
    return tuple(found)
