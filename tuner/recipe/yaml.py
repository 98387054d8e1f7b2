"""Reads YAML strictly: the 1.2 core scalars, one document, no tags, anchors or duplicate keys, and a place for all.

PyYAML reads YAML 1.1, where `no` is False, `1e-4` is text, `012` is ten and `12:30` is 750. Here its parser only yields
events; what a scalar means is decided by the YAML 1.2 core schema, and a recipe is refused rather than guessed at.
Source: https://yaml.org/spec/1.2.2, section 10.3.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from inlay.tuner.problems import Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_VALUES = 5_000
MAX_PROBLEMS = 100  # a file with more mistakes is not a recipe; reading stops there
MAX_DIGITS = 64
LONGEST_SHOWN = 200

KeyPath = tuple[str | int, ...]

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_BIDIRECTIONAL = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\N{REPLACEMENT CHARACTER}")

_ADVICE = {
    "mapping values are not allowed here": "text that holds `: ` needs quotes, and a block starts on its own line",
    "could not find expected ':'": "every line of a block is `key: value`",
    "found unexpected end of stream": "a quote or bracket was opened and never closed",
}


@dataclass(frozen=True)
class Span:
    """A stretch of one line; `line` is 0 for a `--set`, whose `file` is the whole argument."""

    file: str
    line: int = 0
    column: int = 0
    width: int = 1
    source: str = ""

    def problem(self, message: str, *, path: str = "", note: str = "", help: str = "") -> Problem:
        """A `Problem` that points here."""
        return Problem(message, self.file, self.line, self.column, self.width, self.source, note, path, help)


@dataclass
class Document:
    """A parsed recipe: its value, where every key and scalar stands, and what was wrong with it.

    Attributes:
        value: the root mapping; keys are always text, as written.
        keys, values: spans by path; `values` holds scalars only.
        commanded: paths that `--set` gave.
        complete: the whole text was read; False after a mistake that stopped the reading.
    """

    file: str
    value: dict[str, Any] = field(default_factory=dict)
    keys: dict[KeyPath, Span] = field(default_factory=dict)
    values: dict[KeyPath, Span] = field(default_factory=dict)
    commanded: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    complete: bool = False

    def span(self, path: KeyPath, *, key: bool = False) -> Span:
        """The place of the value (or of the key) at `path`, or of the nearest thing that encloses it."""
        for end in range(len(path), 0, -1):
            here = path[:end]
            found = None if key else self.values.get(here)
            found = found or self.keys.get(here) or self.values.get(here)
            if found:
                return found
        return Span(self.file)

    def is_commanded(self, path: KeyPath) -> bool:
        """Whether the value at `path` came from `--set`."""
        return any(path[: len(given)] == given for given in self.commanded)


class _Unreadable(Exception):
    """Reading cannot go on; the problem is already noted."""


@dataclass
class _Frame:
    """An open mapping or sequence. `path` is None inside a value that is being skipped."""

    container: dict[str, Any] | list[Any]
    path: KeyPath | None
    key: str | None = None
    skip: bool = False


def dotted(path: KeyPath) -> str:
    """`('eval', 'metrics', 0)` -> `eval.metrics[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def scalar(text: str) -> Any:
    """What a plain (unquoted) scalar means: None, bool, int, float or text.

    Raises:
        ValueError: a number that is not finite, or of more than `MAX_DIGITS` characters.
    """
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    whole = _INT.fullmatch(text)
    if not whole and not _FLOAT.fullmatch(text) and not _NOT_FINITE.fullmatch(text):
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has at most {MAX_DIGITS} characters, this one {len(text)}")
    if whole:
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
    number = float(text) if _FLOAT.fullmatch(text) else math.inf
    if not math.isfinite(number):
        raise ValueError(f"`{text}` is not a finite number")
    return number


def control_character(text: str) -> str:
    """The first character of the text that no recipe may hold, as `U+001B`; empty where there is none."""
    found = _CONTROL.search(text)
    return f"U+{ord(found.group()):04X}" if found else ""


def read(data: bytes, file: str) -> Document:
    """Reads one YAML document whose root is a mapping. Mistakes are collected in `Document.problems`."""
    document = Document(file)
    text = _decode(data, document)
    if text is None:
        return document
    builder = _Builder(document, text)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
        if not builder.documents:
            builder.refuse(None, "the recipe is empty", help="`inlay init` writes a recipe to start from")
        document.complete = builder.documents > 0
    except _Unreadable:
        pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.problems.append(_syntax_problem(error, builder.at(mark.line, mark.column, 1)))
    return document


def _decode(data: bytes, document: Document) -> str | None:
    def stop(message: str, before: str = "") -> None:
        lines = _LINE_BREAK.split(before)
        document.problems.append(Span(document.file, len(lines), len(lines[-1]) + 1).problem(message))

    if len(data) > MAX_BYTES:
        return stop(f"the file holds {len(data):,} bytes; a recipe has at most {MAX_BYTES:,}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        return stop(f"byte 0x{data[error.start]:02x} is not UTF-8 text; save the file as UTF-8", before)
    text = text.removeprefix("\ufeff")
    bad = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if bad:
        return stop(f"the control character U+{ord(bad.group()):04X} may not stand in a recipe", text[: bad.start()])
    return text


def _syntax_problem(error: yaml.MarkedYAMLError, span: Span) -> Problem:
    what = error.problem or "unreadable"
    if "'\\t'" in what:
        return span.problem("a tab is used where YAML wants spaces", help="indent with spaces")
    if what.startswith("found character '%'") or what.startswith("found character '@'") or "'`'" in what:
        return span.problem("text that starts with this character needs quotes", help='write "..." round the value')
    context = f" {error.context}" if error.context else ""
    return span.problem(f"not valid YAML: {what}{context}", help=_ADVICE.get(what, ""))


class _Builder:
    """Turns parser events into plain values with an explicit stack, so that depth cannot exhaust Python's own."""

    def __init__(self, document: Document, text: str) -> None:
        self.document = document
        self.lines = _LINE_BREAK.split(text)
        self.stack: list[_Frame] = []
        self.documents = 0
        self.values = 0

    def at(self, line: int, column: int, width: int) -> Span:
        source = self.lines[line] if line < len(self.lines) else ""
        shown = source.translate(_BIDIRECTIONAL) if len(source) <= LONGEST_SHOWN else ""
        return Span(self.document.file, line + 1, column + 1, max(1, width), shown)

    def span(self, event: yaml.Event) -> Span:
        start, end = event.start_mark, event.end_mark
        last = end.column if end.line == start.line else len(self.lines[start.line])
        return self.at(start.line, start.column, last - start.column)

    def refuse(self, event: yaml.Event | None, message: str, help: str = "") -> None:
        place = self.span(event) if event else Span(self.document.file)
        self.document.problems.append(place.problem(message, help=help))
        if len(self.document.problems) >= MAX_PROBLEMS:
            raise _Unreadable

    def stop(self, event: yaml.Event, message: str, help: str = "") -> None:
        self.refuse(event, message, help)
        raise _Unreadable

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._start_document(event)
        elif isinstance(event, yaml.NodeEvent):
            self._take_node(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self.stack.pop()

    def _start_document(self, event: yaml.DocumentStartEvent) -> None:
        self.documents += 1
        if self.documents > 1:
            self.stop(event, "a second document starts here; a recipe file holds one")
        if event.version or event.tags:
            self.refuse(event, "YAML directives (`%...`) are not read in a recipe", "remove the line")

    def _take_node(self, event: yaml.NodeEvent) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            self.stop(event, f"more than {MAX_VALUES:,} keys and values; this is no recipe")
        if isinstance(event, yaml.AliasEvent):
            self.refuse(event, f"aliases (`*{event.anchor}`) are not read in a recipe", "write the value out")
        elif event.anchor:
            self.refuse(event, f"anchors (`&{event.anchor}`) are not read in a recipe", "remove the anchor")
        elif event.tag:
            self.refuse(event, "tags (`!...`) are not read in a recipe", "remove the tag")
        if isinstance(event, yaml.ScalarEvent) and (found := control_character(event.value)):
            self.stop(event, f"the character {found} may not stand in a recipe")
        frame = self.stack[-1] if self.stack else None
        if frame is None:
            self._take_root(event)
        elif isinstance(frame.container, dict) and frame.key is None:
            self._take_key(frame, event)
        else:
            self._take_value(frame, event)

    def _take_root(self, event: yaml.NodeEvent) -> None:
        if not isinstance(event, yaml.MappingStartEvent):
            empty = isinstance(event, yaml.ScalarEvent) and not event.value
            message = "the recipe is empty" if empty else "a recipe is a block of `key: value` lines"
            self.stop(event, message, "`inlay init` writes a recipe to start from")
        self.stack.append(_Frame(self.document.value, ()))

    def _take_key(self, frame: _Frame, event: yaml.NodeEvent) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            self.stop(event, "a key is text; here stands a list, a block or an alias")
        frame.key = event.value
        frame.skip = True
        if event.value == "<<" and event.style is None:
            self.refuse(event, "merge keys (`<<`) are not read in a recipe", "write the keys out")
        elif not event.value:
            self.refuse(event, "a key is missing before `:`")
        elif event.value in frame.container:
            first = self.document.keys.get((*(frame.path or ()), event.value))
            before = f" (first on line {first.line})" if first else ""
            self.refuse(event, f"the key `{event.value}` stands here twice{before}", "remove one of the two")
        else:
            frame.skip = False
            if frame.path is not None:
                self.document.keys[(*frame.path, event.value)] = self.span(event)

    def _take_value(self, frame: _Frame, event: yaml.NodeEvent) -> None:
        part = frame.key if isinstance(frame.container, dict) else len(frame.container)
        path = None if frame.path is None or frame.skip else (*frame.path, part)
        value: Any = None
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
            if path is not None and event.start_mark.index < event.end_mark.index:
                self.document.values[path] = self.span(event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            value = {} if isinstance(event, yaml.MappingStartEvent) else []
        if isinstance(frame.container, list):
            frame.container.append(value)
        elif not frame.skip:
            frame.container[part] = value
        frame.key = None
        if isinstance(value, (dict, list)):
            if len(self.stack) >= MAX_DEPTH:
                self.stop(event, f"nested more than {MAX_DEPTH} deep")
            self.stack.append(_Frame(value, path))

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        if event.style is not None:
            return event.value
        try:
            return scalar(event.value)
        except ValueError as error:
            self.refuse(event, str(error))
            return 0
