"""The contract of a task. Every other module of this folder is one task: `dialogue` is `dialogue.py`, class `Dialogue`.

A task says which columns a data row has, and turns a row into examples. It knows nothing of tokens or models: one
renderer turns the same examples into tokens, for training and for benchmarking.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import string
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from inlay.eval import Example
from inlay.tuner.problems import Problem, RequestError

Holds = Literal["text", "texts", "label", "messages"]


class Task(ABC):
    """One kind of task, with the choices that a recipe made for it.

    Attributes:
        title: in words.
        columns: own column name -> what it holds (`text`; `texts`, one or a list of them; `label`; `messages`).
        metrics: what it is benchmarked with where the recipe names no metrics.
        default_prompt: the template that a row's columns are put into, or None where the task is a conversation.
        prompt_fields: the columns that a prompt template must use; with `free_fields` it may name others instead.
        answers: how an answer is found: `generate` text, `choose` a label, or `read` a text, where there is none.
    """

    title: ClassVar[str]
    columns: ClassVar[Mapping[str, Holds]]
    metrics: ClassVar[tuple[str, ...]]
    default_prompt: ClassVar[str | None] = None
    answers: ClassVar[Literal["generate", "choose", "read"]] = "generate"
    prompt_fields: ClassVar[tuple[str, ...]] = ()
    free_fields: ClassVar[bool] = False

    def __init__(self, *, prompt: str | None = None, labels: Mapping[str, str] | None = None, all_turns: bool = False):
        self.prompt = prompt if prompt is not None else self.default_prompt
        self.labels = dict(labels or {})
        self.all_turns = all_turns

    @classmethod
    def columns_for(cls, prompt: str | None) -> Mapping[str, Holds]:
        """The columns that a row must have under this prompt: those of the task, or the fields of a free prompt in the
        place of those that a prompt must use."""
        fields = fields_of(prompt or "")
        if not cls.free_fields or not fields:
            return cls.columns
        rest = {name: holds for name, holds in cls.columns.items() if name not in cls.prompt_fields}
        return {**dict.fromkeys(fields, "text"), **rest}

    @property
    def learns(self) -> bool:
        """Whether the recipe left anything open that `learn` takes from the training rows."""
        return False

    def learn(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Takes from the training rows what the recipe left open (the labels of a classification)."""
        return

    @abstractmethod
    def examples(self, row: Mapping[str, object], row_id: str, *, training: bool) -> list[Example]:
        """The examples of one row. In training one example may hold several trained turns."""

    @abstractmethod
    def cut(self, row: Mapping[str, object], share: float) -> Mapping[str, object]:
        """The row with only `share` (0 to 1) of its document or history, never less of its answer."""

    def fill(self, row: Mapping[str, object]) -> str:
        """The prompt template with the row's columns in it; braces in the data stay as they are."""
        pieces = []
        for literal, name, _, _ in string.Formatter().parse(self.prompt or ""):
            pieces += [literal, str(row[name]) if name else ""]
        return "".join(pieces)


def fields_of(prompt: str) -> list[str]:
    """The fields of a prompt template in their order, each once; none of a malformed one."""
    try:
        return list(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None))
    except ValueError:
        return []


def check_prompt(task: type[Task], prompt: str) -> str | None:
    """What is wrong with a prompt template for this task, or None."""
    if task.default_prompt is None:
        return f"a {task.title} task has no prompt template"
    try:
        parsed = [field for field in string.Formatter().parse(prompt) if field[1] is not None]
    except ValueError as error:
        return f"the template is malformed ({error}); write {{{{ for a literal brace"
    fields = [str(name) for _, name, _, _ in parsed]
    dressed = next((name for _, name, form, conversion in parsed if form or conversion), None)
    if dressed:
        return f"a field is put in as it is; write `{{{dressed}}}` alone"
    answers = [name for name in task.columns if name not in task.prompt_fields]
    if task.free_fields and fields:
        wrong = next((name for name in fields if not name.isidentifier() or name in answers), None)
        told = "is the answer" if wrong in answers else "is no name of a column"
        return None if wrong is None else f"the field `{{{wrong}}}` {told}"
    unknown = [name for name in fields if name not in task.prompt_fields]
    if unknown:
        return f"unknown field `{{{unknown[0]}}}`; this task has {', '.join(f'`{{{n}}}`' for n in task.prompt_fields)}"
    missing = [name for name in task.prompt_fields if name not in fields]
    return f"the template never uses `{{{missing[0]}}}`, so the model would not see it" if missing else None


def names() -> list[str]:
    """The names of all tasks, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> type[Task]:
    """The class of the task called `name`.

    Raises:
        LookupError: no such task; the message names the closest one.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        raise LookupError(f"unknown task `{name}`{hint} (known: {', '.join(names())})")
    module = importlib.import_module(f"{__name__}.{name}")
    return getattr(module, "".join(part.capitalize() for part in name.split("_")))


def label_problem(label: str, known: Sequence[str]) -> RequestError:
    """A label that neither the training rows nor the recipe have."""
    close = difflib.get_close_matches(label, known, n=1)
    return RequestError(
        Problem(
            f"the label {label!r} is not among the {len(known)} labels that are known",
            path="task.labels",
            help=f"did you mean {close[0]!r}?" if close else "list every label under task.labels",
        )
    )
