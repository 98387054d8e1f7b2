"""What a model is asked: a line that somebody types, or a row of a file, as an example of the task it was trained for.

A row is taken as the benchmark takes it, by the same functions. Where it lacks the answer, which is what is wanted, a
stand-in holds its place; no prompt ever depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from inlay.eval import Example, Reply, Role, Text, Turn
from inlay.tuner.data.columns import ROLES, Columns
from inlay.tuner.data.formats import Row, quoted
from inlay.tuner.data.prepared import cut_to_fit, example_length
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.data.tasks import Task, fields_of
from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.serve.opened import Target

STAND_IN = "-"
MESSAGES, PROMPT = "messages", "prompt"


@dataclass(frozen=True)
class TooLong:
    """Why a row cannot be asked: it needs `tokens`, and `room` is there, the answer's own left out."""

    tokens: int
    room: int

    def __str__(self) -> str:
        return f"the prompt has {self.tokens} tokens; {self.room} fit"


class Questions:
    """Makes what is asked of one model.

    Attributes:
        conversation: a question may follow on earlier ones and their answers; otherwise each stands alone.
    """

    def __init__(self, target: Target) -> None:
        self._target, self._task = target, target.task
        self.conversation = self._task is None or MESSAGES in self._task.columns

    @property
    def manner(self) -> str:
        """How a line is asked, in words."""
        task = self._task
        if self.conversation or task is None:
            return "a conversation"
        if task.answers == "read":
            return "each line is gone on with, by itself"
        if self._field is None:
            return "each line is a whole prompt, and answered by itself"
        what = "given a label" if task.answers == "choose" else "answered"
        return f"each line is put into the prompt {task.prompt!r} and {what} by itself"

    def line(self, text: str) -> Example:
        """What is asked with a line where each stands alone.

        Raises:
            RequestError: the line cannot be asked.
        """
        task = self._task
        if task is None or (self._field is None and task.answers != "read"):
            return Reply("", (Turn("prompt", text),), (STAND_IN,))
        return self._examples(task, {self._field or "text": text}, "")[0]

    def row(self, row: Row) -> list[Example | TooLong]:
        """What is asked with a row of a file: the task's own columns, or `messages`, or a `prompt`.

        Raises:
            RequestError: the row has none of them, or what it holds cannot be used; names its file and line.
        """
        try:
            asked = self._asked(row)
            if asked is not None:
                return self._fitted(asked)
            return [self.fitting(self._other(row))]
        except RequestError as failure:
            raise RequestError([replace(p, file=row.file, line=row.line) for p in failure.problems]) from None

    def fitting(self, example: Example) -> Example | TooLong:
        """The example, or by how much it is too long."""
        length, context = self._length([example]), self._target.context
        if context is None or length <= context:
            return example
        prompt = len(prompt_ids(self._target.renderer, example))
        return TooLong(prompt, context - (length - prompt))

    @property
    def _field(self) -> str | None:
        """The one column that a line stands for; None where the prompt has none or several."""
        fields = self._inputs
        return fields[0] if len(fields) == 1 and fields[0] != MESSAGES else None

    @property
    def _inputs(self) -> Sequence[str]:
        """The task's columns that a prompt is made of."""
        if self._task is None:
            return ()
        return fields_of(self._task.prompt or "") or list(self._task.columns)[:1]

    def _shown(self, name: str) -> str:
        return self._target.columns.get(name, name)

    def _asked(self, row: Row) -> Row | None:
        """The row under the task's own names and checked; None where it lacks what the task's prompt is made of."""
        if not self._inputs or any(self._shown(name) not in row.values for name in self._inputs):
            return None
        assert self._task is not None
        holds = self._task.columns_for(self._task.prompt)
        if self.conversation:
            return _conversation(Columns(holds, self._target.columns), row)
        whole = Columns(holds, self._target.columns).take(row)
        if isinstance(whole, Row):
            return whole
        return _taken(Columns({name: holds[name] for name in self._inputs}, self._target.columns), row)

    def _other(self, row: Row) -> Example:
        """Of a row without the task's own columns."""
        if MESSAGES in row.values:
            made = _conversation(Columns({MESSAGES: MESSAGES}), row)
            said = cast(list[dict[str, str]], made.values[MESSAGES])
            turns = tuple(Turn(cast(Role, message["role"]), message["content"]) for message in said[:-1])
            return Reply(row.id, turns, (STAND_IN,))
        if PROMPT in row.values:
            text = cast(str, _taken(Columns({PROMPT: "text"}), row).values[PROMPT])
            if self._task and self._task.answers == "read":
                return Text(row.id, text)
            spoken = self._task is not None and self.conversation
            return Reply(row.id, (Turn("user" if spoken else "prompt", text),), (STAND_IN,))
        known = dict.fromkeys([*map(self._shown, self._inputs), MESSAGES, PROMPT])
        raise RequestError(f"the row has none of {', '.join(map(quoted, known))}")

    def _examples(self, task: Task, values: Mapping[str, object], row_id: str) -> list[Example]:
        whole = dict(values)
        for name, kind in task.columns_for(task.prompt).items():
            if kind == "label" and whole.get(name) not in task.labels:
                whole[name] = next(iter(task.labels))
            whole.setdefault(name, [STAND_IN] if kind == "texts" else STAND_IN)
        return task.examples(whole, row_id, training=False)

    def _fitted(self, row: Row) -> list[Example | TooLong]:
        """The examples of the row, its document cut where it is too long and the recipe says so."""
        task, context = self._task, self._target.context
        assert task is not None

        def make(values: Mapping[str, object]) -> tuple[list[Example], int]:
            made = self._examples(task, values, row.id)
            return made, self._length(made)

        examples, length = make(row.values)
        if self._target.truncate and context is not None and length > context:
            examples = cut_to_fit(task, row.values, make, context) or examples
        return [self.fitting(example) for example in examples]

    def _length(self, examples: Sequence[Example]) -> int:
        """Tokens of the longest of them with its answer."""
        render, new_tokens = self._target.renderer, self._target.decoding.max_new_tokens
        return max(
            len(render.opening_ids(e.text)) + new_tokens
            if isinstance(e, Text)
            else example_length(render, e, new_tokens)
            for e in examples
        )


def prompt_ids(renderer: Renderer, example: Example) -> tuple[int, ...]:
    """What the model reads before it answers, or goes on."""
    return renderer.opening_ids(example.text) if isinstance(example, Text) else renderer.prompt_ids(example.turns)


def _taken(columns: Columns, row: Row) -> Row:
    found = columns.take(row)
    if isinstance(found, Problem):
        raise RequestError(found)
    return found


def _conversation(columns: Columns, row: Row) -> Row:
    """The row with a stand-in behind a conversation that ends with its question."""
    column = columns.names.get(MESSAGES, MESSAGES)
    said = row.values[column]
    if isinstance(said, list) and said and isinstance(said[-1], dict):
        last = said[-1].get("role", said[-1].get("from"))
        if isinstance(last, str) and ROLES.get(last) == "user":
            said = [*said, {"role": "assistant", "content": STAND_IN}]
    return _taken(columns, replace(row, values={**row.values, column: said}))
