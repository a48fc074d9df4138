"""Cron strings and time zones, checked without Dagster."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

_MACROS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ENTRY = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?")


def cron_fault(text: str) -> str:
    """What is wrong with a cron string of five fields; empty where nothing is.

    Lists, ranges, steps and English names are understood, as crontab(5) has them; `@daily` and its like too.
    """
    if text.startswith("@"):
        return "" if text in _MACROS else f"{text!r} is not one of {', '.join(_MACROS)}"
    fields = text.split()
    if len(fields) != 5:
        return f"{text!r} has {len(fields)} fields; a cron string has five: minute hour day-of-month month day-of-week"
    values: list[set[int]] = []
    for field, (name, low, high, words) in zip(fields, _FIELDS, strict=True):
        found: set[int] = set()
        for entry in field.split(","):
            fault = _read(entry, low, high, words, found)
            if fault:
                return f"{name} {field!r}: {fault}"
        values.append(found)
    if fields[4] == "*" and all(min(values[2]) > _LENGTHS[month - 1] for month in values[3]):
        return f"{text!r} never happens: no such day in that month"
    return ""


def _read(entry: str, low: int, high: int, words: tuple[str, ...], found: set[int]) -> str:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return f"{entry!r} is not a value, a range, a list or a step"
    star, first, last, step = match.groups()
    if star:
        start, end = low, high
    else:
        ends = [_value(word, low, words) for word in (first, last or first)]
        if None in ends or not all(low <= number <= high for number in ends if number is not None):
            return f"{entry!r} is not within {low} to {high}"
        start, end = (int(number) for number in ends if number is not None)
        if step and not last:
            end = high
    if start > end:
        return f"the range {entry!r} runs backwards"
    if step is not None and not 1 <= int(step) <= high:
        return f"the step of {entry!r} is not within 1 to {high}"
    found.update(range(start, end + 1, int(step or 1)))
    return ""


def _value(word: str, low: int, words: tuple[str, ...]) -> int | None:
    if word.isdigit():
        return int(word)
    return words.index(word.lower()) + low if word.lower() in words else None


def timezone_fault(name: str) -> str:
    """What is wrong with an IANA time zone name; empty where nothing is."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return f"{name!r} is no IANA time zone"
    return ""
