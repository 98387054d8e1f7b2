"""`inlay generate`: answers every row of a file, in batches, and goes on where it was stopped.

While it works, answers are kept in `OUTPUT.partial`, a batch at a time in the order in which they were made, behind a
first line that says what is asked of which model. The output appears whole, in the order of the input, when the last
answer is there. Batches are those of the benchmark, also after a stop: the same rows get the same answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from inlay.eval import Choice, Example
from inlay.eval.generate import in_batches
from inlay.eval.likelihood import choices_in_batches
from inlay.tuner.console import Progressing, hushed
from inlay.tuner.data.formats import Row
from inlay.tuner.data.reader import PROBLEMS_SHOWN, read_rows
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.problems import AnswerNo, Interrupted, MachineError, Problem, RequestError
from inlay.tuner.run_directory import write_whole
from inlay.tuner.serve.answers import Answer, text_of
from inlay.tuner.serve.decoding import Wishes
from inlay.tuner.serve.opened import Opened, open_target
from inlay.tuner.serve.questions import Questions, TooLong, prompt_ids
from inlay.tuner.signals import StopRequest


@dataclass(frozen=True)
class _Asked:
    """What is asked with one line of the input."""

    line: int
    what: Example | TooLong


@dataclass(frozen=True)
class _Read:
    """A question as the model reads it: the prompt, and for a choice the tokens of each label."""

    example: Example
    prompt: tuple[int, ...]
    labels: list[tuple[int, ...]]


def generate(target: str, *, input: Path, output: Path, base: str | None = None, wishes: Wishes | None = None) -> Path:
    """Answers every row of `input` and writes the answers to `output`, a line each.

    Args:
        target: a run's folder, an adapter's folder, or a model.
        input: rows with the run's own columns, or `messages`, or `prompt`.
        output: must not exist. One object a line: `line` (of the input), `id` (of the row, as in a run's
            predictions.jsonl), `prediction`, `finished` (it ended by itself); a row that is too long has a
            `problem` and no prediction.
        base, wishes: as for `open_target`.

    Returns:
        `output`.

    Raises:
        RequestError: rows cannot be asked, or the output, or what is left of an earlier try, is in the way.
        MachineError: memory did not suffice.
        AnswerNo: the output is written, and rows in it have no answer.
        Interrupted: stopped by a signal; asked again, it goes on.
    """
    _refuse_taken(output)
    rows = _rows(input)
    show = Progressing()
    with hushed(), StopRequest():
        opened = open_target(target, base=base, wishes=wishes)
        asked = _questions(rows, Questions(opened.target), input)
        examples = [question.what for question in asked if not isinstance(question.what, TooLong)]
        reads = [_read(opened.target.renderer, example) for example in examples]
        with _Journal(output, _identity(opened, input, reads)) as journal:
            try:
                _answer_all(opened, reads, journal, show)
            except Interrupted as stop:
                message = f"{stop}: {len(journal.answers)} of {len(reads)} answers are kept; asked again, it goes on"
                raise Interrupted(message, stop.exit_code) from None
            finally:
                show.clear()
            _refuse_taken(output)
            write_whole(output, _lines(asked, journal.answers))
            journal.remove()
    silent = len(asked) - len(reads)
    if silent:
        message = f"{silent} of {len(asked)} rows are too long and have no answer; `{output}` says by how much"
        raise AnswerNo(message, help="ask for shorter answers with --max-new-tokens, or shorten the rows")
    return output


def _refuse_taken(output: Path) -> None:
    if output.exists():
        raise RequestError(f"`{output}` exists already, and nothing is overwritten", help="name another file")
    if not output.parent.is_dir():
        raise RequestError(f"there is no folder `{output.parent}` to write to")


def _rows(path: Path) -> list[Row]:
    """The rows of the file as they are."""
    items = list(read_rows(path, str(path)))
    problems = [item for item in items if isinstance(item, Problem)]
    if not items:
        problems.append(Problem("the file holds no rows", file=str(path)))
    _raise(problems, path)
    return [item for item in items if isinstance(item, Row)]


def _questions(rows: Sequence[Row], questions: Questions, path: Path) -> list[_Asked]:
    """What is asked with each row."""
    asked: list[_Asked] = []
    problems: list[Problem] = []
    for row in rows:
        try:
            asked += [_Asked(row.line, what) for what in questions.row(row)]
        except RequestError as failure:
            problems += failure.problems
    _raise(problems, path)
    return asked


def _raise(problems: list[Problem], path: Path) -> None:
    """All that is wrong with a file, in one error."""
    if len(problems) > PROBLEMS_SHOWN:
        more = Problem(f"{len(problems) - PROBLEMS_SHOWN} more rows like these", file=str(path))
        problems = [*problems[:PROBLEMS_SHOWN], more]
    if problems:
        raise RequestError(problems)


def _read(render: Renderer, example: Example) -> _Read:
    labels = example.labels if isinstance(example, Choice) else ()
    return _Read(example, prompt_ids(render, example), [render.answer_ids(example.turns, label) for label in labels])


def _identity(opened: Opened, path: Path, reads: Sequence[_Read]) -> dict[str, str]:
    """What answers depend on, by what a user would call it."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    prompts = hashlib.sha256()
    for read in reads:
        prompts.update(json.dumps([read.prompt, read.labels]).encode())
    how = f"{opened.target.decoding.signature()}, in batches of {opened.target.batch_size}"
    held = f"{opened.base.quantization}, {opened.base.compute_dtype}"
    return {
        "input": sha256,
        "prompts": prompts.hexdigest(),
        "model": opened.sha256,
        "quantization": held,
        "decoding": how,
    }


def _answer_all(opened: Opened, reads: Sequence[_Read], journal: _Journal, show: Progressing) -> None:
    """Answers what the journal lacks, batch by batch."""
    import torch

    if journal.answers:
        show.say(f"going on after {len(journal.answers)} of {len(reads)} answers")
    try:
        for choose, what in ((_chosen, "choosing"), (_written, "generating")):
            own = [i for i, read in enumerate(reads) if isinstance(read.example, Choice) == (choose is _chosen)]
            known = {place for place, i in enumerate(own) if i in journal.answers}
            for batch, answers in choose(opened, [reads[i] for i in own], known):
                journal.add({own[place]: found for place, found in zip(batch, answers, strict=True)})
                show.step(what, len(journal.answers), len(reads))
    except torch.OutOfMemoryError as error:
        message = f"out of memory in a batch of {opened.target.batch_size}: {str(error).splitlines()[0]}"
        raise MachineError(message, help="what is done is kept; use a machine with more") from error


def _written(opened: Opened, reads: Sequence[_Read], known: set[int]) -> Iterator[tuple[list[int], list[Answer]]]:
    """Batches of generated texts; those that are `known` are left out."""
    target, render = opened.target, opened.target.renderer
    for batch, rows in in_batches(
        opened.scorable,
        [read.prompt for read in reads],
        target.decoding,
        stop_ids=render.stop_ids,
        batch_size=target.batch_size,
        skip=known,
    ):
        texts = [text_of(render, reads[i].example, ids) for i, ids in zip(batch, rows, strict=True)]
        yield batch, [Answer(text, ids[-1] in render.stop_ids) for text, ids in zip(texts, rows, strict=True)]


def _chosen(opened: Opened, reads: Sequence[_Read], known: set[int]) -> Iterator[tuple[list[int], list[Answer]]]:
    """Batches of labels, each the likeliest of its row's; those that are `known` are left out."""
    prompts, labels = [read.prompt for read in reads], [read.labels for read in reads]
    size = opened.target.batch_size
    for batch, rows in choices_in_batches(opened.scorable, prompts, labels, batch_size=size, skip=known):
        chances = [(cast(Choice, reads[i].example), sums) for i, sums in zip(batch, rows, strict=True)]
        names = [example.labels[sums.index(min(sums))] for example, sums in chances]
        yield batch, [Answer(name, True) for name in names]


def _lines(asked: Sequence[_Asked], answers: dict[int, Answer]) -> str:
    lines, number = [], 0
    for question in asked:
        if isinstance(question.what, TooLong):
            line = {"line": question.line, "prediction": None, "finished": False, "problem": str(question.what)}
        else:
            found = answers[number]
            number += 1
            line = {"line": question.line, "id": question.what.id, "prediction": found.text, "finished": found.finished}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


class _Journal:
    """The answers so far, on disk. One process at a time writes there.

    Attributes:
        answers: by the number of the question.
    """

    def __init__(self, output: Path, identity: dict[str, str]) -> None:
        self.path = output.with_name(f"{output.name}.partial")
        self.answers: dict[int, Answer] = {}
        self._identity: dict[str, object] = dict(identity)
        try:
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except OSError as error:
            raise RequestError(f"`{self.path}` cannot be written: {error.strerror}") from error

    def __enter__(self) -> _Journal:
        try:
            self._begin()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, answers: dict[int, Answer]) -> None:
        """Keeps the answers of a batch."""
        self.answers |= answers
        for number, found in answers.items():
            self._file.write(self._line({"question": number, "text": found.text, "finished": found.finished}))
        self._file.flush()

    def remove(self) -> None:
        """Takes the file away: the output holds it all."""
        self.path.unlink(missing_ok=True)

    def _begin(self) -> None:
        with contextlib.suppress(ImportError):
            import fcntl  # not on Windows

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RequestError(f"another process is writing to `{self.path}`") from None
        lines = self._file.read().splitlines(keepends=True)
        first = self._line(self._identity)
        if not lines or (len(lines) == 1 and first.startswith(lines[0])):  # stopped while the first was written
            lines = []
        else:
            self._refuse_other(lines[0])
            if not lines[-1].endswith(b"\n"):  # stopped while it was written
                lines.pop()
        for line in lines[1:]:
            row = json.loads(line)
            self.answers[row["question"]] = Answer(row["text"], row["finished"])
        self._file.seek(sum(map(len, lines)))
        self._file.truncate()
        if not lines:
            self._file.write(first)
            self._file.flush()

    def _refuse_other(self, line: bytes) -> None:
        try:
            before = json.loads(line)
            changed = [name for name, value in self._identity.items() if before[name] != value]
        except (ValueError, KeyError, TypeError):
            raise RequestError(f"`{self.path}` is no list of answers", help="name another output") from None
        if changed:
            message = f"`{self.path}` holds answers to another request: the {' and the '.join(changed)} changed"
            raise RequestError(message, help="name another output, or remove that file to begin anew")

    @staticmethod
    def _line(row: dict[str, object]) -> bytes:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
