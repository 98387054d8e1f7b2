"""Benchmarks of any Hugging Face model: examples in, scores with intervals out. Knows nothing of recipes or adapters.

An example is one of the kinds below, and one runner serves each kind: a `Reply` is generated and its reference scored
by likelihood; a `Choice` is answered by the likelihood of its labels; a `Text` is scored by its own likelihood. `score`
runs what the metrics need and returns a `Report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "prompt"]


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation, or a task's `prompt`, which is no turn: where a model has no chat template it stands
    as it is, where it has one it is a user's message. `trained`: its text is an answer that training learns from."""

    role: Role
    text: str
    trained: bool = False


@dataclass(frozen=True)
class Reply:
    """Turns, and the answer expected next: `references[0]` is trained on and scored, all are compared with."""

    id: str
    turns: tuple[Turn, ...]
    references: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The expected answer."""
        return self.references[0]


@dataclass(frozen=True)
class Choice:
    """Turns, and the labels of which one is the answer: `labels[gold]`."""

    id: str
    turns: tuple[Turn, ...]
    labels: tuple[str, ...]
    gold: int

    @property
    def answer(self) -> str:
        """The expected answer."""
        return self.labels[self.gold]


@dataclass(frozen=True)
class Text:
    """A text that is read as it stands; nothing is asked."""

    id: str
    text: str

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Nothing comes before a text."""
        return ()

    @property
    def answer(self) -> str:
        """What is learned and scored."""
        return self.text

    @property
    def references(self) -> tuple[str, ...]:
        """The text alone."""
        return (self.text,)


Example = Reply | Choice | Text


COLDEST = 1e-5  # the lowest temperature that logits are divided by: below it that could overflow


@dataclass(frozen=True)
class Decoding:
    """How text is generated. Everything is explicit: the model's own generation config is never consulted."""

    max_new_tokens: int = 64
    do_sample: bool = False
    num_beams: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0

    @property
    def draws(self) -> bool:
        """Tokens are drawn; at a temperature near 0 that is to take the likeliest."""
        return self.do_sample and self.temperature >= COLDEST

    @property
    def greedy(self) -> bool:
        """The likeliest token each time, and nothing else."""
        return not self.draws and self.num_beams == 1 and self.repetition_penalty == 1.0

    def signature(self) -> str:
        """The settings in one line, e.g. `greedy, at most 64 tokens`."""
        how = f"beam search {self.num_beams}" if self.num_beams > 1 else "greedy"
        if self.do_sample:
            how = f"sampled T={self.temperature:g} top_p={self.top_p:g} top_k={self.top_k} seed={self.seed}"
        penalty = f", repetition penalty {self.repetition_penalty:g}" if self.repetition_penalty != 1.0 else ""
        return f"{how}{penalty}, at most {self.max_new_tokens} tokens"


@dataclass(frozen=True)
class Record:
    """What one example left behind; a metric reads from it what it `needs`.

    Attributes:
        id: the example's.
        references: the expected texts; for a choice, the gold label alone.
        prediction: the generated text, or the chosen label; empty for a text.
        finished: generation ended by itself (True where nothing was generated).
        nll_nats: negative log-likelihood of the first reference's tokens, end token included, in nats.
        tokens: how many tokens that is a sum over.
        reference_bytes: UTF-8 length of the first reference.
        labels: for a choice, the labels; else empty.
        label_nll_nats: for a choice, each label's summed negative log-likelihood, in nats.
        label_tokens: for a choice, each label's number of tokens.
        gold, chosen: for a choice, indices into `labels`; else -1.
    """

    id: str
    references: tuple[str, ...]
    prediction: str
    finished: bool
    nll_nats: float
    tokens: int
    reference_bytes: int
    labels: tuple[str, ...] = ()
    label_nll_nats: tuple[float, ...] = ()
    label_tokens: tuple[int, ...] = ()
    gold: int = -1
    chosen: int = -1


@dataclass(frozen=True)
class Score:
    """One number with its uncertainty.

    Attributes:
        value: in `unit`.
        ci95: 95 % interval over examples, in `unit`; None where there is none.
        unit: `%`, `points`, `per token`, `bits per byte`, ...
        higher_is_better: None where neither direction is better.
        signature: every setting that can change the number.
        n: examples it is computed over.
        note: how the interval was made, e.g. `bootstrap`, `Wilson`, `constant`.
    """

    value: float
    ci95: tuple[float, float] | None
    unit: str
    higher_is_better: bool | None
    signature: str
    n: int
    note: str = ""


@dataclass(frozen=True)
class Change:
    """A score of one model against another's on the same examples.

    Attributes:
        value: new minus old, in `unit`; relative, in %, where the unit is a ratio scale (perplexity).
        ci95: paired 95 % interval over examples.
        unit: `%`, `points` or `pp` (percentage points).
        verdict: what the interval earned.
    """

    value: float
    ci95: tuple[float, float] | None
    unit: str
    verdict: Literal["better", "worse", "unclear", "same"]


@dataclass(frozen=True)
class Report:
    """Scores by name, what each example left, and what it cost."""

    scores: Mapping[str, Score]
    records: Sequence[Record]
    example_scores: Mapping[str, Sequence[float]]
    tokens_scored: int
    seconds: float
    decoding: str
    batch_size: int


class MeasurementError(ValueError):
    """A score would be wrong or meaningless: non-finite likelihoods, unequal lengths, no examples."""
