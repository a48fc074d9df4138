"""Identifiers made of digits: recognised by how many there are, how they are grouped, and their check digits.

Groups may stand apart by a space, dot, dash or slash. A number without check digits (a telephone number) counts only in
a form that people write it in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from distill_dagster.privacy import checksums
from distill_dagster.privacy.found import Finding

Shape = tuple[int, ...]

_RUN = re.compile(r"(?<!\d)\d+(?:(?:[ \t]?[-./][ \t]?|[ \t]{1,2})\d+)*")
_DATE = re.compile(r"(?:\d{1,2}([-./])\d{1,2}\1(?:\d{4}|\d{2})|\d{4}([-./])\d{1,2}\2\d{1,2})(?=$|[ \t])")
_LONGEST = 19


@dataclass(frozen=True)
class Group:
    """Digits that stand together."""

    start: int
    end: int


@dataclass(frozen=True)
class Window:
    """Neighbouring groups of a run, looked at as one number.

    Attributes:
        digits: The digits.
        shape: How many stand in each group.
        signs: The separators, one character each.
        alone: Nothing else stands in the run, and no letter touches it.
    """

    digits: str
    shape: Shape
    signs: str
    alone: bool

    @property
    def spread(self) -> bool:
        """Every digit stands by itself."""
        return self.alone and len(self.shape) > 1 and max(self.shape) == 1


@dataclass(frozen=True)
class Scheme:
    """A numbering scheme: how its numbers are grouped, and the check that they pass."""

    kind: str
    shapes: frozenset[Shape]
    check: Callable[[str], bool]

    def fits(self, window: Window) -> bool:
        """Whether a number of this scheme is written so."""
        return (window.shape in self.shapes or window.spread) and self.check(window.digits)


def day(year: str, month: str, date: str) -> bool:
    """Whether month and day exist."""
    return len(year) in (2, 4) and 1 <= int(month) <= 12 and 1 <= int(date) <= 31


def _swedish(digits: str) -> bool:
    short = digits[-10:]
    return day(short[:2], short[2:4], str((int(short[4:6]) - 1) % 60 + 1)) and checksums.luhn(short)


def _pesel(digits: str) -> bool:
    return day(digits[:2], str(int(digits[2:4]) % 20), digits[4:6]) and checksums.pesel(digits)


def _norwegian(digits: str) -> bool:
    return day(digits[4:6], digits[2:4], str(int(digits[:2]) % 40)) and checksums.fodselsnummer(digits)


def _belgian(digits: str) -> bool:
    return int(digits[2:4]) % 20 <= 12 and int(digits[4:6]) <= 31 and checksums.belgian(digits)


def _ssn(digits: str) -> bool:
    return digits[:3] not in ("000", "666") and digits[3:5] != "00" and digits[5:] != "0000"


def _korean(digits: str) -> bool:
    return day(digits[:2], digits[2:4], digits[4:6]) and digits[6] in "12345678"


#: Schemes by their number of digits.
SCHEMES: dict[int, list[Scheme]] = {}

for _name, _shapes, _check in (
    ("NHS_NUMBER", ((10,), (3, 3, 4)), checksums.nhs),
    ("PERSONNUMMER", ((10,), (6, 4)), _swedish),
    ("PERSONNUMMER", ((12,), (8, 4)), _swedish),
    ("STEUER_ID", ((11,), (2, 3, 3, 3)), checksums.steuer_id),
    ("CPF", ((11,), (3, 3, 3, 2)), checksums.cpf),
    ("PESEL", ((11,),), _pesel),
    ("FODSELSNUMMER", ((11,), (6, 5)), _norwegian),
    ("NATIONAL_NUMBER", ((11,), (2, 2, 2, 3, 2)), _belgian),
    ("TCKN", ((11,),), checksums.tckn),
    ("AADHAAR", ((12,), (4, 4, 4)), lambda digits: digits[0] > "1" and checksums.verhoeff(digits)),
    ("AHV_NUMBER", ((13,), (3, 4, 4, 2)), lambda digits: digits.startswith("756") and checksums.ean(digits)),
    ("RRN", ((6, 7),), _korean),
    ("SIN", ((3, 3, 3),), lambda digits: digits[0] not in "08" and checksums.luhn(digits)),
):
    SCHEMES.setdefault(sum(_shapes[0]), []).append(Scheme(_name, frozenset(_shapes), _check))


def find(text: str) -> Iterator[Finding]:
    """Numbers of known schemes, cards and telephone numbers in a plain text; they may overlap."""
    for run in _RUN.finditer(text):
        if run.end() - run.start() < 8:
            continue
        groups = [Group(run.start() + one.start(), run.start() + one.end()) for one in re.finditer(r"\d+", run.group())]
        dated = _DATE.match(run.group()) is not None
        for first in range(len(groups)):
            digits = ""
            for last in range(first, len(groups)):
                digits += text[groups[last].start : groups[last].end]
                if len(digits) > _LONGEST:
                    break
                if len(digits) < 9:
                    continue
                window = _window(text, groups, first, last, digits)
                kind = None if _decimals(text, groups[first], window) else _kind(window, dated)
                if kind is not None:
                    yield Finding(groups[first].start, groups[last].end, kind, digits)


def _window(text: str, groups: list[Group], first: int, last: int, digits: str) -> Window:
    inside = groups[first : last + 1]
    signs = "".join(text[one.end : other.start].strip() or " " for one, other in zip(inside, inside[1:], strict=False))
    edges = text[groups[0].start - 1 : groups[0].start] if groups[0].start else ""
    edges += text[groups[-1].end : groups[-1].end + 1]
    alone = len(inside) == len(groups) and not any((char.isascii() and char.isalpha()) or char == "_" for char in edges)
    return Window(digits, tuple(one.end - one.start for one in inside), signs, alone)


def _decimals(text: str, group: Group, window: Window) -> bool:
    """Digits behind a decimal sign."""
    before = text[max(0, group.start - 2) : group.start]
    return len(window.shape) == 1 and len(before) == 2 and before[0].isdigit() and before[1] in ".,"


def _kind(window: Window, dated: bool) -> str | None:
    digits, shape = window.digits, window.shape
    if len(digits) >= 13 and _card_shape(window) and checksums.card(digits):
        return "CARD"
    for scheme in SCHEMES.get(len(digits), ()):
        if scheme.fits(window):
            return scheme.kind
    same = len(set(window.signs)) <= 1
    if shape == (3, 2, 4) and same and "/" not in window.signs and _ssn(digits):
        return "SSN"
    if shape == (6, 4) and window.alone and window.signs == "-" and day(digits[4:6], digits[2:4], digits[:2]):
        return "CPR"
    return "PHONE" if not dated and _phone(window) else None


def _card_shape(window: Window) -> bool:
    shape = window.shape
    if len(shape) == 1 or window.spread or shape in ((4, 6, 5), (4, 6, 4), (4, 5, 4), (8, 8)):
        return True
    if set(shape[:-1]) == {4} and shape[-1] <= 4:
        return True
    return window.alone and set(shape[:-1]) == {2} and shape[-1] <= 2


def _phone(window: Window) -> bool:
    """National forms: North America, France, China's mobiles, and a trunk 0 with 8 to 11 digits behind it."""
    digits, shape, first = window.digits, window.shape, window.digits[0]
    if shape == (3, 3, 4) or (shape == (1, 3, 3, 4) and first == "1"):
        return "/" not in window.signs
    if not window.alone:
        return shape == (2, 2, 2, 2, 2) and first == "0" != digits[1] and len(set(window.signs)) == 1
    if shape == (10,) and first > "1" and digits[3] > "1":
        return True
    if shape in ((11,), (3, 4, 4)) and first == "1" and digits[1] > "2":
        return True
    if digits[:2] == "00" and digits[2] > "0":
        return 10 <= len(digits) <= 16
    return first == "0" and digits[1] > "0" and 9 <= len(digits) <= 12 and len(shape) <= 6 and max(shape[:1]) > 1
