"""Payment fields: amount, currency and value date of the instruction that stands.

Other amounts and dates stand beside it, and corrections change one field, both, or are taken back again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from itertools import product
from random import Random
from typing import Any

from distill_dagster.domains.base import Item, PromptTemplate, Task, Verdict
from distill_dagster.domains.finance.words import CURRENCIES, MONTHS, company, date_text, person, sentence

NONE = "none"

#: {a} and {d} are the first amount and date, {a2} and {d2} the second, {p} and {p2} the payees.
INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "active": ("please pay {a} to {p} on {d} for {why}", "please send {a} to {p} on {d} for {why}"),
    "date-first": ("on {d}, please pay {a} to {p} for {why}", "on {d}, {p} should get {a} for {why}"),
    "passive": ("{a} is to be paid to {p} on {d} for {why}", "{p} is to be paid {a} on {d} for {why}"),
    "form": ("payment order for {why}: payee {p}, amount {a}, value date {d}",),
}

#: What happens to the instruction, by kind; the answer takes amount and date by the two numbers (0 means none).
CHANGES: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {
    "amount": (
        (2, 1),
        (
            "the amount should be {a2}, the date stays",
            "pay {a2} instead, on the same day",
            "change the amount to {a2} and keep the date",
        ),
    ),
    "date": (
        (1, 2),
        (
            "the date should be {d2}, the amount stays",
            "pay on {d2} instead, the same amount",
            "change the date to {d2} and keep the amount",
        ),
    ),
    "both": (
        (2, 2),
        (
            "the amount should be {a2} and the date {d2}",
            "pay {a2} on {d2} instead",
            "change the amount to {a2} and the date to {d2}",
        ),
    ),
    "amount-kept": (
        (1, 1),
        (
            "do not change the amount to {a2}, the first amount and date stay",
            "the change to {a2} is off, pay the first amount on the same day",
        ),
    ),
    "date-kept": (
        (1, 1),
        (
            "do not change the date to {d2}, the first amount and date stay",
            "the change to {d2} is off, pay the same amount on the first day",
        ),
    ),
    "date-of-both": (
        (1, 2),
        (
            "the date should be {d2}, while the change to {a2} is off",
            "do not change the amount to {a2}, only pay on {d2} instead",
        ),
    ),
    "amount-of-both": (
        (2, 1),
        (
            "the amount should be {a2}, while the change to {d2} is off",
            "do not change the date to {d2}, only pay {a2} instead",
        ),
    ),
    "cancelled": (
        (0, 0),
        (
            "the payment is off, do not pay it on any day",
            "do not pay this amount, the order is cancelled",
        ),
    ),
}

#: Clauses with an amount and a date that are not the instruction's: text and whether the date lies before or after.
OTHERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "invoice": ("before", ("the invoice over {x} is dated {t}", "an invoice of {t} shows {x}")),
    "booked": ("before", ("the payment of {x} on {t} was booked already", "you paid {x} on {t}, that is done")),
    "fee": ("before", ("your fee of {x} was charged on {t}", "on {t} you charged a fee of {x}")),
    "quote": ("before", ("a quote of {t} said {x}", "the first quote was {x} on {t}")),
    "later": ("after", ("a further {x} on {t} will be a separate order", "for {t} I will order {x} separately")),
    "colleague": ("after", ("a colleague has ordered {x} for {t}, leave that alone",)),
}

PURPOSES = ("rent", "a deposit", "insurance", "repairs", "travel", "training", "paper", "cleaning")

ORDERS = ("instruction-change-other", "other-instruction-change", "instruction-other-change")
LINKS = ("plain", "labelled", "but")
ENVELOPES = ("bare", "hello", "account-first", "signed")

SKELETONS = ["/".join(parts) for parts in product(ORDERS, INSTRUCTIONS, LINKS, ENVELOPES)]

TASK = Task(
    name="payment_fields",
    kind="text",
    title="Payment fields",
    description="Currency, amount and value date of the payment instruction that stands, "
    "among corrections, withdrawn corrections and other amounts.",
    max_new_tokens=24,
)

TEMPLATES = (
    PromptTemplate(
        task="payment_fields",
        style="full",
        system="You read payment messages to a fictional bank. Give the currency, amount and value date of the payment "
        "instruction that stands after all corrections in the message. Amounts and dates of invoices, fees, quotes, "
        "earlier or other payments do not count.\n"
        "Copy them in this form and write nothing else: EUR 120.50 | 14 May 2031\n"
        "If the instruction is cancelled, answer: none",
        user="Message:\n{{ input }}\n\nFields:",
    ),
    PromptTemplate(task="payment_fields", style="short", user="payment:\n{{ input }}"),
)

_WHOLE = (12, 15, 18, 20, 25, 30, 36, 40, 45, 48, 50, 60, 64, 72, 75, 80, 84, 90, 95, 96)
_WHOLE_LARGE = (110, 120, 140, 150, 175, 180, 200, 240, 250, 300, 320, 360, 400, 450, 500, 600, 640, 720, 800, 950)
_CENTS = ("00", "50", "25", "80")


def _amounts(rng: Random, currency: str, count: int) -> list[str]:
    """Distinct amounts, the first in `currency`, the others mostly so."""
    made: list[str] = []
    while len(made) < count:
        unit = rng.choice(CURRENCIES) if made and rng.random() < 0.4 else currency
        amount = f"{unit} {rng.choice(_WHOLE + _WHOLE_LARGE)}.{rng.choice(_CENTS)}"
        if amount not in made:
            made.append(amount)
    return made


def draw(rng: Random, skeleton: str, subject: int) -> Item:
    """One message: an instruction, what became of it, and one or two other payments."""
    order, voice, link, envelope = skeleton.split("/")
    change = rng.choice(tuple(CHANGES))
    while change == "cancelled" and rng.random() < 0.4:
        change = rng.choice(tuple(CHANGES))
    currency = rng.choice(CURRENCIES)
    purpose = rng.choice(PURPOSES)
    others = [rng.choice(tuple(OTHERS))]
    if rng.random() < 0.4:
        others.append(rng.choice([name for name in OTHERS if name != others[0]]))

    amounts = _amounts(rng, currency, 4)
    first = 260 + rng.randrange(250)
    second = first + rng.choice((-1, 1)) * (1 + rng.randrange(30))
    fill = {"a": amounts[0], "a2": amounts[1], "d": date_text(first), "d2": date_text(second)}
    fill |= {"p": company(rng), "why": purpose}

    instruction = rng.choice(INSTRUCTIONS[voice]).format(**fill)
    (take_amount, take_date), wordings = CHANGES[change]
    changed = rng.choice(wordings).format(**fill)
    used_amounts = [amounts[0]] + ([amounts[1]] if amounts[1] in changed else [])
    used_dates = [fill["d"]] + ([fill["d2"]] if fill["d2"] in changed else [])
    asides: list[str] = []
    for place, name in enumerate(others):
        side, texts = OTHERS[name]
        gap = 1 + rng.randrange(40)
        day = date_text(min(first, second) - gap if side == "before" else max(first, second) + gap)
        if day in used_dates:
            day = date_text(min(first, second) - 50)
        asides.append(sentence(rng.choice(texts).format(x=amounts[2 + place], t=day)) + ".")
        used_amounts.append(amounts[2 + place])
        used_dates.append(day)
    aside = " ".join(asides)

    adjacent = order != "instruction-other-change"
    if link == "but" and adjacent:
        together = sentence(f"{instruction}, but {changed}.")
        parts = [aside, together] if order.startswith("other") else [together, aside]
    else:
        marks = {"plain": "", "labelled": "Correction: "}
        if not adjacent:
            marks = {"plain": "About my order: ", "labelled": "Correction to my order: ", "but": "But for my order, "}
        mark = marks[link]
        change_text = (mark + changed if mark else sentence(changed)) + "."
        head = sentence(instruction) + "."
        parts = {
            "instruction-change-other": [head, change_text, aside],
            "other-instruction-change": [aside, head, change_text],
            "instruction-other-change": [head, aside, change_text],
        }[order]
    body = " ".join(parts)
    customer = f"{subject:04d}"
    text = {
        "bare": body,
        "hello": f"{rng.choice(('Hello', 'Good morning', 'Dear team'))}, this is {person(rng)}. {body}",
        "account-first": f"Account {customer}. {body}",
        "signed": f"{body} Regards, {person(rng)}",
    }[envelope]
    answer = NONE
    if take_amount:
        answer = f"{amounts[take_amount - 1]} | {fill['d'] if take_date == 1 else fill['d2']}"
    return Item(
        text=text,
        answer=answer,
        skeleton=skeleton,
        composition="+".join([change, *others, purpose, currency]),
        subject_key=f"customer-{customer}",
        facts={"amounts": sorted(used_amounts), "dates": sorted(used_dates)},
    )


_FIELDS = re.compile(r"([A-Z]{3})\s*([\d,]+(?:\.\d+)?)\s*\|\s*(.+)")
_DATES = (re.compile(r"(\d{1,2})\.? ([A-Za-z]+),? (\d{4})"), re.compile(r"(\d{4})-(\d{2})-(\d{2})"))


def parse_date(text: str) -> tuple[int, int, int] | None:
    """Year, month, day of "14 May 2031", "14 may 2031" or "2031-05-14"; None for anything else."""
    text = text.strip().rstrip(".")
    if match := _DATES[1].fullmatch(text):
        return int(match[1]), int(match[2]), int(match[3])
    match = _DATES[0].fullmatch(text)
    if match is None:
        return None
    for number, month in enumerate(MONTHS, start=1):
        if match[2].lower() in (month.lower(), month[:3].lower()):
            return int(match[3]), number, int(match[1])
    return None


def parse_fields(text: str) -> tuple[str, Decimal, tuple[int, int, int]] | None:
    """Currency, amount and date of an answer such as "EUR 1,200.00 | 14 May 2031"."""
    match = _FIELDS.fullmatch(text.strip())
    day = parse_date(match[3]) if match else None
    if match is None or day is None:
        return None
    return match[1], Decimal(match[2].replace(",", "")), day


def verify(facts: Mapping[str, Any], output: str) -> Verdict:
    """Reject fields that do not stand in the message; which of those that do stand is not checked."""
    amounts, dates = facts.get("amounts"), facts.get("dates")
    if not isinstance(amounts, list) or not isinstance(dates, list) or not amounts or not dates:
        return Verdict(None, "facts name no amounts or dates")
    if output.strip().lower().rstrip(".") == NONE:
        return Verdict(None, "whether the instruction is cancelled is not checked")
    fields = parse_fields(output)
    if fields is None:
        return Verdict(False, "not of the form 'EUR 120.50 | 14 May 2031'")
    currency, amount, day = fields
    if (currency, amount) not in [(known[:3], Decimal(known[4:])) for known in amounts]:
        return Verdict(False, "the message has no such amount")
    if day not in [parse_date(known) for known in dates]:
        return Verdict(False, "the message has no such date")
    return Verdict(None, "stands in the message; whether it is the valid one is not checked")
