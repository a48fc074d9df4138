"""Contracts and matters of Norland: what a subject number stands for, and how a record cites its law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

JURISDICTION = "Norland (fictional)"

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

#: Contract kind -> the party that performs, the party that pays.
CONTRACT_KINDS = (
    ("supply", "supplier", "buyer"),
    ("lease", "lessor", "lessee"),
    ("service", "provider", "client"),
    ("works", "contractor", "owner"),
)

#: Others who may owe something under a contract.
THIRD_PARTIES = ("carrier", "agent", "manager", "installer")

FIRST_YEAR, YEARS = 2019, 6


#: How an excerpt of a contract is headed.
HEADS = {
    "norland_first": "Norland {kind} contract {number}, {year}:",
    "kind_first": "{kind} contract {number} (Norland, {year}):",
}


@dataclass(frozen=True)
class Contract:
    """A contract: its number, kind, performing and paying party, two third parties, and the year of its wording."""

    number: str
    kind: str
    performer: str
    payer: str
    third_parties: tuple[str, str]
    year: int


def contract(subject: int) -> Contract:
    """The contract of a subject number; the same number is always the same contract."""
    block = subject // 100
    kind, performer, payer = CONTRACT_KINDS[block % len(CONTRACT_KINDS)]
    first = block // len(CONTRACT_KINDS) % len(THIRD_PARTIES)
    third_parties = (THIRD_PARTIES[first], THIRD_PARTIES[(first + 1) % len(THIRD_PARTIES)])
    return Contract(f"{subject:04d}", kind, performer, payer, third_parties, year_of(subject))


def heading(deal: Contract, head: str) -> str:
    """First line of an excerpt: the instrument, its jurisdiction and the year of its wording."""
    return capital(HEADS[head].format(kind=deal.kind, number=deal.number, year=deal.year))


def year_of(subject: int) -> int:
    """Year whose wording of the law applies to a subject."""
    return FIRST_YEAR + subject // 100 % YEARS


def citation(instrument: str, year: int) -> dict[str, Any]:
    """Jurisdiction, instrument and as-of date, which every record's facts carry."""
    return {"jurisdiction": JURISDICTION, "instrument": instrument, "as_of": f"{year}-01-01"}


def capital(text: str) -> str:
    """Text with its first letter in upper case."""
    return text[:1].upper() + text[1:]
