"""A text as a person reads it, with the way back: what hides an identifier from a pattern is taken away.

Zero-width and soft-hyphen characters vanish; full-width, mathematical and other scripts' digits become ASCII ones;
every dash is `-` and every blank a space; HTML entities (also twice escaped), `%40` and `\\u0040` become their
characters. Each character of the plain text knows which characters of the original it came from.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_ESCAPES = re.compile(
    r"&(?:amp;)*(?P<entity>#\d{1,7};?|#[xX][0-9a-fA-F]{1,6};?|[A-Za-z][A-Za-z0-9]{1,31};)"
    r"|%(?P<percent>[2-7][0-9a-fA-F])"
    r"|\\u(?P<unicode>[0-9a-fA-F]{4})"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
#: Drawn as nothing or as a blank, though Unicode calls them letters or symbols.
_BLANK = dict.fromkeys("\u115f\u1160\u3164\uffa0\u2800\u034f", "")
_SIGNS = {"\u2212": "-", "\u2043": "-", "\u3002": ".", "\u00b7": ".", "\u30fb": ".", "\u2028": "\n", "\u2029": "\n"}


@dataclass(frozen=True, slots=True)
class Plain:
    """A plain text and where each of its characters stands in the original."""

    text: str
    starts: tuple[int, ...] | None
    ends: tuple[int, ...] | None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the original that a stretch of the plain text was made from."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


def plain(text: str) -> Plain:
    """The plain form of a text."""
    if text.isascii() and not _CONTROL.search(text) and not _ESCAPES.search(text):
        return Plain(text, None, None)
    letters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for start, end, char in _characters(text):
        for letter in _folded(char):
            letters.append(letter)
            starts.append(start)
            ends.append(end)
    return Plain("".join(letters), tuple(starts), tuple(ends))


def _characters(text: str) -> Iterator[tuple[int, int, str]]:
    at = 0
    for found in _ESCAPES.finditer(text):
        yield from ((place, place + 1, text[place]) for place in range(at, found.start()))
        for char in _unescaped(found):
            yield found.start(), found.end(), char
        at = found.end()
    yield from ((place, place + 1, text[place]) for place in range(at, len(text)))


def _unescaped(found: re.Match[str]) -> str:
    if found["entity"]:
        meant = html.unescape(f"&{found['entity']}")
        return found.group() if meant.startswith("&") and len(meant) > 1 else meant
    return chr(int(found["percent"] or found["unicode"], 16))


@lru_cache(maxsize=8192)
def _folded(char: str) -> str:
    """One character as plain ones; several, or none."""
    if char in "\n\r\t" or " " <= char <= "~":
        return char
    if char in _BLANK:
        return ""
    found = ""
    for letter in unicodedata.normalize("NFKC", char):
        sort = unicodedata.category(letter)
        if letter in _SIGNS:
            found += _SIGNS[letter]
        elif sort in ("Cf", "Mn", "Me", "Cc") or letter in _BLANK:
            continue
        elif sort == "Pd":
            found += "-"
        elif sort == "Zs":
            found += " "
        elif sort == "Nd":
            found += str(unicodedata.decimal(letter))
        else:
            found += letter
    return found
