"""Verifier of the deadline task: counts again, with dates, from the facts alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from distill_dagster.domains.base import Verdict
from distill_dagster.domains.law.words import MONTHS

_ONE_DAY = timedelta(days=1)
_UNKNOWN = re.compile(r"(?:it )?(?:cannot|can not|can't) be determined|undetermined|unknown")
_DAY_MONTH = re.compile(r"(\d{1,2})(?:st|nd|rd|th)? (?:of )?([a-z]+)(?:,? (\d{4}))?")
_MONTH_DAY = re.compile(r"([a-z]+) (\d{1,2})(?:st|nd|rd|th)?(?:,? (\d{4}))?")
_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})")


def verify(facts: Mapping[str, Any], output: str) -> Verdict:
    """Judge a date, yes or no, or "cannot be determined"."""
    try:
        answers = _possible_answers(facts)
    except (KeyError, TypeError, ValueError):
        return Verdict(None, "the facts lack a date, the period or a rule")
    said = " ".join(output.lower().split()).rstrip(".")
    if len(answers) != 1:
        return Verdict(_UNKNOWN.fullmatch(said) is not None, "the facts leave the answer open")
    right = answers[0]
    if isinstance(right, bool):
        return Verdict(said == ("yes" if right else "no"), "counted again")
    return Verdict(_is_date(said, right), "counted again")


def _possible_answers(facts: Mapping[str, Any]) -> list[date | bool]:
    """The different answers that the facts allow; none where the period has no start."""
    event = facts["events"][facts["runs_from"]]
    if event is None:
        return []
    open_rule = facts["event_day_counts"] is None
    answers: list[date | bool] = []
    for counts in (False, True) if open_rule else (facts["event_day_counts"],):
        end = _end(facts, date.fromisoformat(event), counts)
        act = facts["act_on"]
        answer = end if act is None else date.fromisoformat(act) <= end
        if answer not in answers:
            answers.append(answer)
    return answers


def _end(facts: Mapping[str, Any], event: date, counts: bool) -> date:
    """Last day of the period: list the days that count, take the last, move it on where the rule says so."""
    free = {date.fromisoformat(day) for day in facts["holidays"]}
    candidates = [event + _ONE_DAY * ahead for ahead in range(0 if counts else 1, 200)]
    if facts["unit"] == "business":
        return [day for day in candidates if _works(day, free)][facts["period"] - 1]
    if facts["unit"] != "calendar":
        raise ValueError("unit must be business or calendar")
    end = candidates[facts["period"] - 1]
    if facts["end_moves_to_business_day"]:
        end = next(day for day in candidates if day >= end and _works(day, free))
    return end


def _works(day: date, free: set[date]) -> bool:
    return day.isoweekday() <= 5 and day not in free


def _is_date(said: str, right: date) -> bool:
    """Whether the words name that date; the year may be left out."""
    if found := _ISO.fullmatch(said):
        return (int(found[1]), int(found[2]), int(found[3])) == (right.year, right.month, right.day)
    if found := _DAY_MONTH.fullmatch(said):
        day, month, year = found[1], found[2], found[3]
    elif found := _MONTH_DAY.fullmatch(said):
        month, day, year = found[1], found[2], found[3]
    else:
        return False
    name = MONTHS[right.month - 1].lower()
    return int(day) == right.day and month in (name, name[:3]) and (not year or int(year) == right.year)
