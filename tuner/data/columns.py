"""What a task's columns must hold, and how they are found in a file under other names."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from inlay.tuner.data.formats import Row, describe, quoted
from inlay.tuner.problems import Problem

# Names under which other data sets keep the same thing; only ever suggested, never taken unasked.
OTHER_NAMES = {
    "messages": ("conversations", "conversation", "dialog", "dialogue", "turns"),
    "document": ("dialogue", "article", "text", "content", "input", "source"),
    "summary": ("target", "highlights", "abstract", "tldr", "output", "summaries"),
    "source": ("input", "question", "prompt", "instruction", "src", "text"),
    "target": ("output", "answer", "response", "completion", "tgt", "reference"),
    "text": ("sentence", "content", "review", "document", "question", "input"),
    "label": ("labels", "category", "class", "intent", "topic", "coarse_label"),
}
ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}


class UnfitError(ValueError):
    """A value is not what its column must hold; the message goes on after the field's name: `is null; ...`."""


Check = Callable[[object], object]


def text(value: object) -> str:
    """Accepts text that is not blank, and returns it unchanged."""
    if not isinstance(value, str) or not value.strip():
        raise UnfitError(f"is {describe(value)}; expected text")
    return value


def texts(value: object) -> list[str]:
    """Accepts one text or a list of them (several references), and returns a list; also `{text: [...]}`, as SQuAD keeps
    its answers."""
    if isinstance(value, str):
        return [text(value)]
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        return texts(value["text"])
    if not isinstance(value, list) or not value:
        raise UnfitError(f"is {'an empty list' if value == [] else describe(value)}; expected text or a list of texts")
    for number, item in enumerate(value, start=1):
        if not isinstance(item, str) or not item.strip():
            raise UnfitError(f"holds {describe(item)} at place {number}; expected texts")
    return list(value)


def label(value: object) -> str:
    """Accepts text, a whole number or true/false, and returns it as text without space around it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        found = "a number with a fraction" if isinstance(value, float) else describe(value)
        raise UnfitError(f"is {found}; expected a label (text or a whole number)")
    return value.strip()


def messages(value: object) -> list[dict[str, str]]:
    """Accepts a conversation and returns it as `{role, content}` in turn.

    A message is `{role, content}` or `{from, value}`; the roles are an optional system first, then user and assistant
    by turns, with one answer at least.
    """
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else describe(value)
        raise UnfitError(f"is {found}; expected a list of messages {{role, content}}")
    turns = [_message(item, number) for number, item in enumerate(value, start=1)]
    first = 1 if turns[0]["role"] == "system" else 0
    for place, turn in enumerate(turns[first:]):
        expected = "assistant" if place % 2 else "user"
        if turn["role"] != expected:
            raise UnfitError(f"has role `{turn['role']}` in message {first + place + 1}; expected `{expected}`")
    if len(turns) < first + 2:
        raise UnfitError("holds no answer; expected an `assistant` message after a `user` message")
    return turns


def _message(item: object, number: int) -> dict[str, str]:
    if not isinstance(item, dict):
        raise UnfitError(f"holds {describe(item)} as message {number}; expected {{role, content}}")
    names = ("role", "content") if "role" in item or "content" in item else ("from", "value")
    role, content = (item.get(name) for name in names)
    if not isinstance(role, str) or role not in ROLES:
        found = f"role {quoted(role)}" if isinstance(role, str) else "no role" if role is None else "a bad role"
        raise UnfitError(f"has {found} in message {number}; expected system, user or assistant")
    if not isinstance(content, str) or not content.strip():
        raise UnfitError(f"has {describe(content)} as the `{names[1]}` of message {number}; expected text")
    return {"role": ROLES[role], "content": content}


CHECKS: Mapping[str, Check] = {"text": text, "texts": texts, "label": label, "messages": messages}
REFERENCES = "references"


@dataclass(frozen=True)
class Columns:
    """The columns of a task.

    A column of `texts` has a companion, `references`: a row must have one of the two, and what both hold is joined
    without repetitions. Test sets with several references often keep them there, beside the column or in its stead.

    Attributes:
        holds: what each column holds, by the task's own name for it: one of the names in `CHECKS`.
        names: the file's column for an own name, where they differ.
    """

    holds: Mapping[str, str]
    names: Mapping[str, str] = field(default_factory=dict)

    def unknown(self) -> list[Problem]:
        """The mapped names that the task does not have."""
        own = [*self.holds, *([REFERENCES] if "texts" in self.holds.values() else [])]
        return [
            Problem(
                f"the task has no column {quoted(name)}; it has {_listed(own)}",
                path=f"task.columns.{name}",
                help=f"did you mean `{close[0]}`?" if (close := difflib.get_close_matches(name, own, n=1)) else "",
            )
            for name in self.names
            if name not in own
        ]

    def missing(self, row: Row) -> Problem | None:
        """Why a file that starts with this row does not have the columns at all, or None."""
        for name in self.holds:
            if not any(column in row.values for column in self._places(name)):
                column = self._places(name)[0]
                message = f"the file has no column {quoted(column)}; it has {_listed(row.values)}"
                path = f"task.columns.{name}" if name in self.names else ""
                help = self._suggestion(name, row)
                return Problem(message, file=row.file, line=row.line, path=path, help=help)
        return None

    def take(self, row: Row) -> Row | Problem:
        """The row under the task's own names, checked and without its other columns; or what is wrong with it."""
        values: dict[str, object] = {}
        for name, kind in self.holds.items():
            columns = self._places(name)
            held = [column for column in columns if row.values.get(column) is not None] or columns[:1]
            found = []
            for column in held:
                try:
                    found.append(CHECKS[kind](row.values.get(column)))
                except UnfitError as unfit:
                    words = str(unfit) if column in row.values else str(unfit).replace("is null", "is missing", 1)
                    return Problem(f"field {quoted(column)} {words}", file=row.file, line=row.line)
            values[name] = found[0] if len(found) == 1 else list(dict.fromkeys(itertools.chain(*found)))
        return Row(values, row.file, row.line)

    def _places(self, name: str) -> list[str]:
        """The file's columns that can hold what the task calls `name`."""
        own = [name, REFERENCES] if self.holds[name] == "texts" else [name]
        return [self.names.get(each, each) for each in own]

    def _suggestion(self, name: str, row: Row) -> str:
        """The mapping that would make the row fit: by a close name, a name known elsewhere, or the only one left."""
        taken = {column for own in self.holds if own != name for column in self._places(own)}
        fit = [
            column
            for column, value in row.values.items()
            if column not in taken and _fits(CHECKS[self.holds[name]], value)
        ]
        close = difflib.get_close_matches(name, fit, n=1)
        known = [other for other in OTHER_NAMES.get(name, ()) if other in fit]
        choice = (close or known or (fit if len(fit) == 1 else []))[:1]
        if choice:
            return f"map it in the recipe: `columns: {{{name}: {choice[0]}}}`"
        return f"map one of {_listed(fit)} in the recipe: `columns: {{{name}: ...}}`" if fit else ""


def _fits(check: Check, value: object) -> bool:
    try:
        check(value)
    except UnfitError:
        return False
    return True


def _listed(names: Mapping[str, object] | list[str]) -> str:
    shown = [quoted(name) for name in list(names)[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"
