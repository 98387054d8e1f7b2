"""Pages as a reader's browser takes them apart."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link"}
UNREAD = {"style", "script"}


class Page(HTMLParser):
    """Reads a page: its elements, the text of each kind of element, and whether its tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.stack: list[str] = []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"a doubled attribute in <{tag}>"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self.stack), data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.elements if found == tag]

    def text(self, tag: str = "html") -> str:
        hidden = UNREAD - {tag}
        return "".join(data for stack, data in self.texts if tag in stack and not hidden & set(stack))


def luminance(colour: str) -> float:
    """WCAG 2 relative luminance of `#rrggbb`."""
    red, green, blue = linear_light(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def linear_light(colour: str) -> list[float]:
    """The shares of linear light in `#rrggbb`."""
    shares = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]


def contrast(front: str, back: str) -> float:
    """WCAG 2 contrast ratio of two colours `#rrggbb`."""
    low, high = sorted([luminance(front), luminance(back)])
    return (high + 0.05) / (low + 0.05)


def themes(css: str) -> dict[str, dict[str, str]]:
    """The colour variables of the style sheet that all pages share, by theme."""
    blocks = [
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)
    ]
    light, dark, printed = blocks
    return {"light": light, "dark": light | dark, "print": light | dark | printed}


def tables(html: str, start: str) -> list[list[str]]:
    """The cells of the body rows of the first table that begins with `start`, as text; `/` before smaller text."""
    whole = html[html.index(start) :].split("</table>")[0].split("</thead>")[1]
    rows = []
    for row in re.findall(r"<tr.*?</tr>", whole, re.S):
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", re.sub(r"<svg.*</svg>", "", row, flags=re.S), re.S)
        rows.append(
            [re.sub("<[^>]+>", "", cell.replace("<small", " /<small")).replace("−", "-").strip() for cell in cells]
        )
    return rows


def block(html: str, name: str) -> dict:
    """A JSON block of the page."""
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.S)[1])
