"""Verified task `deadline`: the last day of a period, or whether an act came in time.

The text supplies the period, the event it runs from, whether the day of that event counts, what weekends and
holidays do, and the holidays. Where the day of the event or the counting rule is missing and the answer depends
on it, the answer is "cannot be determined". All dates of an item lie in one month.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import permutations
from random import Random

from distill_dagster.domains.base import Item, Task
from distill_dagster.domains.law.words import MONTHS, WEEKDAYS, capital, citation, year_of

TASK = Task(
    name="deadline",
    kind="verified",
    title="Deadline",
    description="Last day of a statutory period, or whether an act was in time, from the rules supplied.",
    max_new_tokens=16,
)

UNKNOWN = "cannot be determined"


@dataclass(frozen=True)
class Matter:
    """A kind of matter: its act, what must be done, the thing it is about, and two events (verb, noun)."""

    act: str
    due: str
    thing: str
    first: tuple[str, str]
    second: tuple[str, str]


MATTERS = (
    Matter("Notice Act", "reply", "notice", ("sent", "sending"), ("received", "receipt")),
    Matter("Appeals Act", "appeal", "ruling", ("given", "the ruling"), ("served", "service")),
    Matter("Goods Act", "complaint", "defect", ("caused", "the damage"), ("found", "discovery")),
    Matter("Contracts Act", "objection", "contract", ("signed", "signing"), ("registered", "registration")),
    Matter("Invoices Act", "payment", "invoice", ("issued", "issue"), ("accepted", "acceptance")),
)

#: What the text lacks. Only the last two can leave the answer open.
GAPS = ("none",) * 9 + ("other_event",) * 3 + ("trigger", "counting")

CALENDAR_PERIODS = (3, 4, 5, 7, 10)
BUSINESS_PERIODS = (2, 3, 4, 5)

#: Blocks of a text: facts, period, counting rule, weekend rule, holidays. The period comes before its rules.
_ORDERS = [
    "".join(order) for order in permutations("FPCWH") if order.index("P") < min(order.index("C"), order.index("W"))
]
#: A skeleton is an order of blocks, a register, and which of the two events is told first.
SKELETONS = [
    f"{order}/{register}/{told}"
    for order in _ORDERS
    for register in ("prose", "note")
    for told in ("early_first", "late_first")
]


@dataclass(frozen=True)
class Case:
    """The generator's own numbers for one item; days are days of the month, None where not known."""

    month: int
    year: int
    days: tuple[int | None, int | None]
    trigger: int
    period: int
    unit: str
    moves: bool
    counts: bool | None
    holidays: tuple[int, ...]
    act_day: int | None = None

    def weekday(self, day: int) -> int:
        """0 for Monday to 6 for Sunday."""
        return date(self.year, self.month, day).weekday()

    def is_business(self, day: int) -> bool:
        return self.weekday(day) < 5 and day not in self.holidays

    def last_day(self, counts: bool) -> int | None:
        """Day of the month on which the period ends, None where it does not begin."""
        start = self.days[self.trigger]
        if start is None:
            return None
        day = start if counts else start + 1
        if self.unit == "business":
            left = self.period
            while True:
                left -= self.is_business(day)
                if left == 0:
                    return day
                day += 1
        day += self.period - 1
        while self.moves and not self.is_business(day):
            day += 1
        return day


def draw(rng: Random, skeleton: str, subject: int) -> Item:
    """One matter told in the arrangement of `skeleton`."""
    order, register, told = skeleton.split("/")
    matter = MATTERS[subject // 100 % len(MATTERS)]
    year, month = year_of(subject), 1 + rng.randrange(12)
    trigger = rng.randrange(2)
    unit = rng.choice(("business", "calendar", "calendar"))
    period = rng.choice(BUSINESS_PERIODS if unit == "business" else CALENDAR_PERIODS)
    moves = unit == "calendar" and rng.random() < 0.5
    asks_in_time = rng.randrange(5) < 2
    gap = rng.choice(GAPS)
    early = 1 + rng.randrange(7)
    days: list[int | None] = [early, early + 1 + rng.randrange(3)]
    start = days[trigger] or 0
    if gap == "other_event":
        days[1 - trigger] = None
    if gap == "trigger":
        days[trigger] = None
    told_gap = rng.choice(("silent", "said")) if gap in ("other_event", "trigger") else ""
    counts = None if gap == "counting" else rng.random() < 0.5
    # Holidays stand near the end of the period, where some of them matter.
    near = start + period + rng.randrange(-1, 3)
    holidays = tuple(sorted({near, near + rng.choice((1, 3, 4))}))[: 1 + rng.randrange(2)]
    case = Case(month, year, (days[0], days[1]), trigger, period, unit, moves, counts, holidays)
    ends = sorted({end for end in _ends(case) if end is not None})
    in_time = rng.random() < 0.5
    if asks_in_time:
        last = ends[-1] if ends else start + period
        act_day = max(last - rng.randrange(4), start + 1) if in_time else last + 1 + rng.randrange(4)
        if len(ends) == 2:
            act_day = last
        case = Case(month, year, case.days, trigger, period, unit, moves, counts, holidays, act_day)
    answer, rationale = _answer(case)
    asked = "in_time" if asks_in_time else "last_day"
    reached = "moved" if answer != UNKNOWN and _moved(case) else "plain"
    event = (matter.first, matter.second)[trigger][1]
    rules = f"{period} {unit} from {event} on {WEEKDAYS[case.weekday(start)]}, counts {counts}, moves {moves}"
    composition = f"{matter.act}: {rules}, gap {gap} {told_gap}, {asked}, {reached}, {len(holidays)} holidays"
    return Item(
        text=_text(case, matter, order, register, told, told_gap == "silent", f"{subject:04d}"),
        answer=answer,
        skeleton=skeleton,
        composition=composition,
        subject_key=f"matter-{subject:04d}",
        facts={
            **citation(f"Norland {matter.act}", year),
            "events": {matter.first[1]: _iso(case, days[0]), matter.second[1]: _iso(case, days[1])},
            "runs_from": event,
            "period": period,
            "unit": unit,
            "event_day_counts": counts,
            "end_moves_to_business_day": moves,
            "holidays": [_iso(case, day) for day in holidays],
            "act_on": _iso(case, case.act_day),
        },
        rationale=rationale,
    )


def _ends(case: Case) -> list[int | None]:
    """The end of the period under each counting rule that is left open."""
    return [case.last_day(counts) for counts in ((case.counts,) if case.counts is not None else (False, True))]


def _moved(case: Case) -> bool:
    """Whether weekends or holidays changed the end."""
    plain = Case(case.month, case.year, case.days, case.trigger, case.period, "calendar", False, case.counts, ())
    return _ends(plain) != _ends(case)


def _answer(case: Case) -> tuple[str, str]:
    """Answer and worked solution."""
    ends = _ends(case)
    if ends[0] is None:
        return UNKNOWN, "The day from which the period runs is not given."
    results = {_result(case, end) for end in ends if end is not None}
    if len(results) > 1:
        return UNKNOWN, "Whether the day of the event counts is not given, and the answer depends on it."
    if case.counts is None:
        return results.pop(), f"Whether the day of the event counts makes no difference: {_ends_said(case, ends)}."
    start = case.days[case.trigger] or 0
    first = start if case.counts else start + 1
    kind = "business day" if case.unit == "business" else "day"
    steps = [f"Counting starts on {_day(case, first)}"]
    if case.unit == "calendar":
        plain = first + case.period - 1
        steps.append(f"{kind} {case.period} is {_day(case, plain)}, a {WEEKDAYS[case.weekday(plain)]}")
        if plain != ends[0]:
            steps.append("which is no business day")
    else:
        steps.append(f"{kind} {case.period} is {_day(case, ends[0])}")
    steps.append(f"the last day is {_day(case, ends[0])}")
    return results.pop(), "; ".join(steps) + "."


def _ends_said(case: Case, ends: Sequence[int | None]) -> str:
    """The ends that both counting rules give, in words."""
    days = sorted({end for end in ends if end is not None})
    return f"the last day is {' or '.join(_day(case, day) for day in days)}"


def _result(case: Case, end: int) -> str:
    if case.act_day is None:
        return _day(case, end)
    return "yes" if case.act_day <= end else "no"


def _text(case: Case, matter: Matter, order: str, register: str, told: str, silent: bool, number: str) -> str:
    """The case in words, its blocks in the given order."""
    prose = register == "prose"
    event = (matter.first, matter.second)[case.trigger][1]
    blocks = {
        "F": _facts(case, matter, prose, told == "early_first", silent),
        "P": _period(case, matter, prose, event),
        "C": _counting(case, prose, event),
        "W": _weekends(case, prose),
        "H": _holidays(case),
    }
    if case.act_day is None:
        question = "last day?"
    else:
        question = f"is {_day(case, case.act_day)} in time?"
    head = f"Norland {matter.act} as of {case.year}, matter {number}."
    body = " ".join(capital(blocks[block]) + "." for block in order if blocks[block])
    return f"{head}\n{body}\nQuestion: {question}"


def _facts(case: Case, matter: Matter, prose: bool, early_first: bool, silent: bool) -> str:
    """What happened when. An event whose day is not known is left out (`silent`) or said to be unknown."""
    told: list[str] = []
    events = list(zip((matter.first, matter.second), case.days, strict=True))
    for (verb, _), day in events if early_first else events[::-1]:
        if day is None:
            if not silent:
                told.append(f"{verb} on a day not known" if prose else f"{verb} (day not known)")
            continue
        when = f"{WEEKDAYS[case.weekday(day)]} {_day(case, day)}"
        told.append(f"{verb} on {when}" if prose else f"{verb} {when}")
    return f"the {matter.thing} was {' and '.join(told)}" if prose else f"{matter.thing}: {', '.join(told)}"


def _period(case: Case, matter: Matter, prose: bool, event: str) -> str:
    if prose:
        article = "an" if matter.due[0] in "ao" else "a"
        due = matter.due if matter.due == "payment" else f"{article} {matter.due}"
        return f"{due} is due within {case.period} {case.unit} days of {event}"
    return f"{matter.due}: {case.period} {case.unit} days from {event}"


def _counting(case: Case, prose: bool, event: str) -> str:
    if case.counts is None:
        return ""
    if prose:
        return f"the day of {event} {'counts' if case.counts else 'does not count'}"
    return f"day of {event}: {'counted' if case.counts else 'not counted'}"


def _weekends(case: Case, prose: bool) -> str:
    if case.unit == "business":
        if prose:
            return "Saturdays, Sundays and holidays are no business days"
        return "no business days: Saturday, Sunday, holidays"
    if prose and case.moves:
        return "a last day on a Saturday, Sunday or holiday moves to the next business day"
    if prose:
        return "a last day on a Saturday, Sunday or holiday stays"
    return f"last day on Saturday, Sunday, holiday: {'moves to the next business day' if case.moves else 'stays'}"


def _holidays(case: Case) -> str:
    if len(case.holidays) == 1:
        return f"holiday: {_day(case, case.holidays[0])}"
    return f"holidays: {' and '.join(_day(case, day) for day in case.holidays)}"


def _day(case: Case, day: int) -> str:
    return f"{day} {MONTHS[case.month - 1]}"


def _iso(case: Case, day: int | None) -> str | None:
    return None if day is None else date(case.year, case.month, day).isoformat()
