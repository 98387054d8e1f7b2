"""The formats of data files: JSON Lines, a JSON array, CSV, TSV and Parquet, each a generator of rows.

Each streams, so memory stays constant whatever the size of the file (a JSON array is the exception: it is read whole,
up to `MAX_ARRAY_BYTES`). A malformed row is never dropped: it comes out as the `Problem` that says where and why, and
reading goes on behind it; where it cannot, `UnreadableError` ends the file.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from inlay.tuner.problems import Problem

MAX_LINE_BYTES = 64 * 1024**2
MAX_ARRAY_BYTES = 256 * 1024**2
PARQUET_BATCH_ROWS = 256
BOM = b"\xef\xbb\xbf"
ONE_OBJECT = "; expected one JSON object per line"


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        values: by column.
        file: the file as the user wrote it.
        line: 1-based line on which the row starts; for Parquet, which has no lines, the number of the row.
    """

    values: dict[str, object]
    file: str
    line: int

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON of the values: equal content has an equal digest, in any file and format."""
        canonical = json.dumps(self.values, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
        return hashlib.sha256(canonical.encode()).digest()

    @property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the digest."""
        return self.digest.hex()[:16]


class UnreadableError(Exception):
    """The rest of the file makes no sense after this problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def quoted(name: object) -> str:
    """A name out of a file, safe to print: control characters and broken text are shown as escapes."""
    return f"`{repr(str(name))[1:-1]}`"


def describe(value: object) -> str:
    """What a value is, in words: `null`, `blank`, `a number`, ..."""
    if isinstance(value, str):
        return "text" if value.strip() else "blank"
    kinds = {type(None): "null", bool: "true or false", int: "a number", float: "a number"}
    return {**kinds, list: "a list", dict: "an object"}.get(type(value), f"of type {type(value).__name__}")


def _lines(file: BinaryIO, shown: str) -> Iterator[tuple[int, str | Problem]]:
    """Yields the number and text of each line, line end included, or what is wrong with its bytes."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            yield number, Problem(f"the line is longer than {MAX_LINE_BYTES // 1024**2} MB", file=shown, line=number)
        else:
            yield number, _decode(line, shown, number)


def _decode(data: bytes, shown: str, line: int) -> str | Problem:
    """UTF-8 to text. `line` is the number of the first line of `data`."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) and line == 1:
        problem = Problem("the file is UTF-16; expected UTF-8", file=shown, line=1, help="save it again as UTF-8")
        raise UnreadableError(problem)
    try:
        text = data.decode()
        bad, found = data.find(b"\0"), "a NUL byte"
        if bad < 0:
            return text
    except UnicodeDecodeError as error:
        bad, found = error.start, f"the byte 0x{data[error.start]:02x} is not UTF-8"
    before = data[:bad].decode()
    place = (line + before.count("\n"), len(before) - before.rfind("\n"))
    return Problem(f"{found}; expected UTF-8 text", shown, *place, help="save the file again as UTF-8")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {quoted(repeated)} occurs twice in one object")
    return values


def _refuse_constant(name: str) -> object:
    raise ValueError(f"`{name}` is not valid JSON; expected a number, text or null")


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _parse(parse: Callable[[], object], shown: str, line: int) -> object:
    """The value that `parse` decodes, or the Problem with it; `line` is where its text starts."""
    try:
        return parse()
    except json.JSONDecodeError as error:
        at = line + error.lineno - 1
        return Problem(f"broken JSON: {error.msg[0].lower()}{error.msg[1:]}", file=shown, line=at, column=error.colno)
    except RecursionError:
        return Problem("the JSON is nested too deeply", file=shown, line=line)
    except ValueError as error:
        # Python's own words about very long numbers go on about interpreter settings.
        message = "a number has too many digits" if "digits" in str(error) else str(error)
        return Problem(message, file=shown, line=line)


def _row(value: object, shown: str, line: int, expected: str = "") -> Row | Problem:
    """A row out of a parsed value; every text in it must be text that can be written as UTF-8."""
    if isinstance(value, Problem):
        return value
    if not isinstance(value, dict):
        return Problem(f"the row is {describe(value)}{expected}", file=shown, line=line)
    fault = next((f"field {quoted(name)} {fault}" for name, part in value.items() if (fault := _fault(part))), None)
    fault = fault or next((f"the name {quoted(name)} {fault}" for name in value if (fault := _fault(name))), None)
    return Problem(f"{fault}; expected text", file=shown, line=line) if fault else Row(value, shown, line)


def _fault(value: object) -> str | None:
    """What is wrong with a text anywhere in a value; walks with a list, because data may nest deeper than calls can."""
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            pending += part
        elif isinstance(part, str):
            if "\0" in part:
                return "holds a NUL character"
            if not part.isascii() and any("\ud800" <= character <= "\udfff" for character in part):
                return "holds half of a surrogate pair"
    return None


def _read_jsonl(file: BinaryIO, shown: str) -> Iterator[Row | Problem]:
    for number, text in _lines(file, shown):
        if isinstance(text, Problem):
            yield text
        elif text.strip():
            if number == 1 and text.lstrip().startswith("["):
                help = "if the file is one JSON array, give it the extension `.json`"
                raise UnreadableError(Problem(f"the line is a list{ONE_OBJECT}", file=shown, line=1, help=help))
            value = _parse(functools.partial(DECODER.decode, text.rstrip()), shown, number)
            yield _row(value, shown, number, ONE_OBJECT)


def _read_json(file: BinaryIO, shown: str) -> Iterator[Row | Problem]:
    """An array of objects; JSON Lines under this extension, common on the hub, are told by their first character."""
    start = file.read(4096).removeprefix(BOM).lstrip()[:1]
    size = file.seek(0, 2)
    file.seek(0)
    if start == b"{":
        yield from _read_jsonl(file, shown)
        return
    if size > MAX_ARRAY_BYTES:
        message = f"the array is larger than {MAX_ARRAY_BYTES // 1024**2} MB, and an array is read whole"
        raise UnreadableError(Problem(message, file=shown, help="write one object per line, as `.jsonl`"))
    text = _decode(file.read().removeprefix(BOM), shown, 1)
    if isinstance(text, Problem):
        raise UnreadableError(text)
    yield from _read_array(text, shown)


def _read_array(text: str, shown: str) -> Iterator[Row | Problem]:
    expected = "expected an array of objects"
    at, line, counted = _skip_space(text, 0), 1, 0
    if at == len(text):
        return
    if text[at] != "[":
        raise UnreadableError(Problem(f"the file holds no array; {expected}", file=shown, line=1))
    at = _skip_space(text, at + 1)
    more = text[at : at + 1] != "]"
    while more:
        line, counted = line + text.count("\n", counted, at), at
        parsed = _parse(functools.partial(DECODER.raw_decode, text, at), shown, 1)
        if isinstance(parsed, Problem):
            # A decoder that stopped gives its place in the whole text; any other objection is to this row.
            raise UnreadableError(parsed if parsed.column else replace(parsed, line=line))
        value, at = parsed
        yield _row(value, shown, line, f"; {expected}")
        at = _skip_space(text, at)
        more = text[at : at + 1] == ","
        if more:
            at = _skip_space(text, at + 1)
        elif text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            raise UnreadableError(Problem("broken JSON: expected `,` or `]` after the object", file=shown, line=line))
    rest = _skip_space(text, at + 1)
    if rest < len(text):
        line += text.count("\n", counted, rest)
        raise UnreadableError(Problem("there is text after the end of the array", file=shown, line=line))


def _skip_space(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\n", "\r"):
        at += 1
    return at


def _read_csv(file: BinaryIO, shown: str, delimiter: str = ",") -> Iterator[Row | Problem]:
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(_texts(file, shown), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            open_quote = "unexpected end of data" in str(error)
            message = "a quote opened in this row is never closed" if open_quote else f"broken row: {error}"
            help = 'a quote inside a quoted field is written twice: ""'
            raise UnreadableError(Problem(message, file=shown, line=line, help=help)) from None
        if not fields:
            continue
        if not header:
            header = _header(fields, shown, line)
        elif len(fields) != len(header):
            message = f"the row has {len(fields)} fields; expected {len(header)}, as in the header"
            help = "put fields that hold the separator or a line break in double quotes"
            yield Problem(message, file=shown, line=line, help=help)
        else:
            yield _row(dict(zip(header, fields, strict=True)), shown, line)


def _texts(file: BinaryIO, shown: str) -> Iterator[str]:
    """The lines of a file in which a bad line spoils the rest: it may have held a quote."""
    for _, text in _lines(file, shown):
        if isinstance(text, Problem):
            raise UnreadableError(text)
        yield text


def _header(names: list[str], shown: str, line: int) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        message = f"the column {quoted(repeated[0])} occurs twice in the header"
        raise UnreadableError(Problem(message, file=shown, line=line))
    return names


def _read_parquet(file: BinaryIO, shown: str) -> Iterator[Row | Problem]:
    import pyarrow as pa
    import pyarrow.parquet  # the reader that `datasets` itself uses, without its cache of converted copies

    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(file)
        names = _header(table.schema_arrow.names, shown, 0)
        for batch in table.iter_batches(batch_size=PARQUET_BATCH_ROWS):
            columns = [column.to_pylist() for column in batch.columns]
            for values in zip(*columns, strict=True):
                number += 1
                yield _row(dict(zip(names, values, strict=True)), shown, number)
    except (pa.ArrowException, OSError, ValueError) as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"not a readable Parquet file, after row {number}: {words}"
        raise UnreadableError(Problem(message, file=shown)) from error


READERS: dict[str, Callable[[BinaryIO, str], Iterator[Row | Problem]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": functools.partial(_read_csv, delimiter="\t"),
    ".parquet": _read_parquet,
}
