"""One answer at a time, told piece by piece as it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inlay.eval import Choice, Decoding, Example, Text
from inlay.eval.generate import stream
from inlay.eval.likelihood import score_choices
from inlay.eval.scoring import Scorable
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.problems import MachineError
from inlay.tuner.serve.questions import prompt_ids

UNFINISHED = "\ufffd"  # what a tokenizer decodes the first bytes of a character to


@dataclass(frozen=True)
class Answer:
    """A text, and whether it ended by itself, rather than at the greatest number of tokens."""

    text: str
    finished: bool


def text_of(renderer: Renderer, example: Example, ids: Sequence[int]) -> str:
    """Generated ids to text: an answer has no outer blanks; what goes on with a text has its own."""
    return renderer.continuation(ids) if isinstance(example, Text) else renderer.decode(ids)


class Unrolling:
    """Text that grows token by token. The pieces join to what `text_of` makes of all the tokens.

    A token may be a part of a character, one byte more may make other characters of all the bytes before it, and blanks
    at the end are no part of an answer: these wait for what follows.
    """

    def __init__(self, renderer: Renderer, example: Example) -> None:
        self._renderer, self._example = renderer, example
        self._ids: list[int] = []
        self._told = ""

    def add(self, token: int) -> str:
        """What the token adds to the text; often nothing."""
        self._ids.append(token)
        if self._renderer.is_byte(token):
            return ""
        return self._grown(self._text().rstrip(UNFINISHED).rstrip())

    def rest(self) -> str:
        """What was held back."""
        return self._grown(self._text())

    def _text(self) -> str:
        return text_of(self._renderer, self._example, self._ids)

    def _grown(self, text: str) -> str:
        """What stands behind what was told, or, where the tokenizer has changed its mind, behind what is left of it."""
        common = len(self._told) if text.startswith(self._told) else _common(self._told, text)
        if common == len(text):
            return ""
        piece, self._told = text[common:], text
        return piece


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def answer(
    scorable: Scorable,
    renderer: Renderer,
    example: Example,
    decoding: Decoding,
    *,
    batch_size: int,
    heard: Callable[[str], None],
) -> Answer:
    """Answers one question: with text, or with the likeliest of its labels.

    Args:
        batch_size: of the likelihoods of labels.
        heard: called with each piece of the text as soon as it stands.

    Raises:
        MachineError: memory did not suffice.
    """
    import torch

    prompt = prompt_ids(renderer, example)
    try:
        if isinstance(example, Choice):
            labels = [renderer.answer_ids(example.turns, label) for label in example.labels]
            [sums] = score_choices(scorable, [prompt], [labels], batch_size=batch_size)
            text = example.labels[sums.index(min(sums))]
            heard(text)
            return Answer(text, True)
        growing = Unrolling(renderer, example)
        ids = stream(
            scorable, prompt, decoding, stop_ids=renderer.stop_ids, heard=lambda token: heard(growing.add(token))
        )
    except torch.OutOfMemoryError as error:
        message = f"out of memory at a prompt of {len(prompt)} tokens: {str(error).splitlines()[0]}"
        raise MachineError(message, help="ask something shorter, or use a smaller base") from error
    heard(growing.rest())
    return Answer(text_of(renderer, example, ids), ids[-1] in renderer.stop_ids)
