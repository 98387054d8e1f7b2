"""Text from data and models, made safe to look at, and measured in terminal columns."""

from __future__ import annotations

import re
import unicodedata

# What a reader cannot see or what reorders what they see: controls (newline and tab are kept), soft hyphen, zero-width
# space, direction marks, embeddings, overrides and isolates, line separators, lone surrogates, byte order mark, tags.
# Zero-width joiner and non-joiner stay: scripts and emoji need them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"\s*(?:[{_CJK}]|[^\W{_CJK}]+|\S)|\s+")


def visible(text: str) -> str:
    """`text` with every hidden character written as its escape, e.g. `\\u202e`; line ends become newlines."""
    return _HIDDEN.sub(lambda match: _escape(match[0]), text.replace("\r\n", "\n"))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str) -> str:
    """`visible` text on one line, runs of white space as one space."""
    return " ".join(visible(text).split())


def words(text: str) -> list[str]:
    """`text` in pieces that join back to it: words, single Chinese or Japanese characters, and marks, each with the
    white space before it."""
    return _WORDS.findall(text)


def clip(text: str, limit: int) -> tuple[str, int]:
    """The first `limit` characters of `text`, and how many were left off."""
    return text[:limit], max(len(text) - limit, 0)


def columns(text: str) -> int:
    """How many terminal columns `text` takes: wide East Asian characters two, combining ones none."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def shorten(text: str, limit: int) -> str:
    """`text` in at most `limit` (5 or more) terminal columns, `...` in place of its middle."""
    if columns(text) <= limit:
        return text
    room = limit - 3
    tail = _take(text[::-1], room // 2)[::-1]
    return _take(text, room - columns(tail)) + "..." + tail


def _take(text: str, limit: int) -> str:
    used = 0
    for index, character in enumerate(text):
        used += _columns(character)
        if used > limit:
            return text[:index]
    return text


def pad(text: str, limit: int, *, right: bool = False) -> str:
    """`text` filled with spaces to `limit` terminal columns; `right` aligns it right."""
    space = " " * max(limit - columns(text), 0)
    return space + text if right else text + space


def wrap(text: str, limit: int) -> list[str]:
    """`text` in lines of at most `limit` (2 or more) terminal columns, broken at spaces, or inside a longer word. What
    fits stays as it is."""
    if columns(text) <= limit:
        return [text]
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if columns(joined) <= limit:
            line = joined
            continue
        lines += [line] if line else []
        while columns(word) > limit:
            lines.append(_take(word, limit))
            word = word[len(lines[-1]) :]
        line = word
    return [*lines, line] if line or not lines else lines
