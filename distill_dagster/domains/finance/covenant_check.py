"""Verifier of the covenant task: computes the answer again from the statement's figures, in exact fractions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from distill_dagster.domains.base import Verdict

_SCALE = {"EUR thousand": 1_000, "EUR million": 1_000_000}
_ANSWER = re.compile(r"([-−]?)\s*(\d[\d,]*(?:\.\d+)?)\s*x?\s*[|;,:]\s*(pass|passed|breach|breached)")
_UNDETERMINED = ("cannot be determined", "can not be determined", "undetermined")


def _value(facts: Mapping[str, Any], name: str) -> Fraction | None:
    """A line in euros for the tested year, averaged with the year before where the definition says so."""
    line = facts["lines"].get(name)
    if line is None:
        return None
    years = [facts["year"]]
    if name in facts["averaged"]:
        years.append(f"FY{int(facts['year'][2:]) - 1}")
    if any(line.get(year) is None for year in years):
        return None
    return Fraction(sum(line[year] for year in years), len(years)) * _SCALE[line["unit"]]


def _total(facts: Mapping[str, Any], side: str) -> Fraction | None:
    total = Fraction(0)
    for sign, name in facts[side]:
        value = _value(facts, name)
        if value is None:
            return None
        total += sign * value
    return total


def expected(facts: Mapping[str, Any]) -> tuple[Fraction, bool] | None:
    """The exact ratio and whether the test is passed; None where it cannot be determined."""
    top, bottom = _total(facts, "top"), _total(facts, "bottom")
    if top is None or bottom is None or bottom <= 0:
        return None
    ratio, limit = top / bottom, Fraction(facts["limit"])
    return ratio, ratio <= limit if facts["bound"] == "at most" else ratio >= limit


def verify(facts: Mapping[str, Any], output: str) -> Verdict:
    """Whether an answer such as "2.5 | pass" is what the figures give. "2.50x; passed" counts as the same."""
    try:
        right = expected(facts)
    except (KeyError, TypeError, ValueError):
        return Verdict(None, "facts are missing or unusable")
    text = output.strip().lower().rstrip(".")
    if text in _UNDETERMINED:
        return Verdict(right is None, "" if right is None else "it can be determined")
    match = _ANSWER.fullmatch(text)
    if match is None:
        return Verdict(False, "not of the form '2.5 | pass'")
    if right is None:
        return Verdict(False, "it cannot be determined")
    ratio, passed = right
    said = Fraction(match[2].replace(",", "")) * (-1 if match[1] else 1)
    # Authored ratios never end on half a tenth, so that every rounding convention agrees.
    if abs(said - ratio) >= Fraction(1, 20) or (said * 10).denominator != 1:
        return Verdict(False, "another ratio")
    return Verdict(match[3].startswith("pass") == passed, "" if match[3].startswith("pass") == passed else "wrong test")
