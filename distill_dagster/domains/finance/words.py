"""Words that the finance tasks share: people, companies, currencies, dates. All of them are invented or generic.

Names are drawn independently of every answer, so that none can be learnt from one.
"""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

FIRST_NAMES = (
    "Anna", "Boris", "Clara", "Daniel", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kemal", "Lucia",
    "Marek", "Nadia", "Oscar", "Priya", "Ruben", "Sofia", "Tomas", "Yuki",
)  # fmt: skip

LAST_NAMES = (
    "Adler", "Bakir", "Costa", "Dietz", "Ekman", "Faro", "Gupta", "Hale", "Ivanov", "Jensen", "Klein", "Lund",
    "Moreau", "Novak", "Okoro", "Park", "Rossi", "Silva", "Tanaka", "Weber",
)  # fmt: skip

COMPANY_FIRST = (
    "Alder", "Birch", "Canal", "Delta", "Ember", "Falcon", "Granite", "Harbour", "Island", "Juniper", "Lantern",
    "Meadow", "North", "Orchard", "Pebble", "River",
)  # fmt: skip

COMPANY_LAST = ("Foods", "Glass", "Logistics", "Paper", "Services", "Textiles", "Timber", "Tools")

CURRENCIES = ("EUR", "USD", "GBP", "CHF")

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip

#: Weekdays from Monday 7 January 2030 on, without the holidays that every bank keeps.
_BUSINESS_DAYS = [
    day
    for day in (date(2030, 1, 7) + timedelta(days=7 * week + weekday) for week in range(160) for weekday in range(5))
    if (day.month, day.day) not in ((1, 1), (5, 1), (12, 25), (12, 26))
]


def person(rng: Random) -> str:
    """A first and a last name."""
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def company(rng: Random) -> str:
    """A company name of two words."""
    return f"{rng.choice(COMPANY_FIRST)} {rng.choice(COMPANY_LAST)}"


def date_text(number: int) -> str:
    """The business day of that number, from 7 January 2030 as number 0, as "14 May 2031"."""
    made = _BUSINESS_DAYS[number]
    return f"{made.day} {MONTHS[made.month - 1]} {made.year}"


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """The noun phrase with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"
