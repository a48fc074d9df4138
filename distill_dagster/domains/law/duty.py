"""Text task `duty`: which party owes the duty that the last line names, and within how many days?

Two or three clauses bind different parties to different duties. A clause may also name a party that is not bound
and a period that no longer holds, and a party that may do something owes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import Any

from distill_dagster.domains.base import Item, Task, Verdict
from distill_dagster.domains.law.words import HEADS, capital, citation, contract, heading

TASK = Task(
    name="duty",
    kind="text",
    title="Duty, party and days",
    description="Party that owes a named duty and the days it has for it, taken from two or three clauses.",
    max_new_tokens=16,
)

#: Base form -> participle.
VERBS = {
    "deliver": "delivered",
    "return": "returned",
    "inspect": "inspected",
    "replace": "replaced",
    "collect": "collected",
    "label": "labelled",
}
OBJECTS = (
    "tools",
    "samples",
    "cables",
    "batteries",
    "parts",
    "machines",
    "manuals",
    "filters",
    "pumps",
    "vehicles",
    "meters",
    "keys",
)
DAYS = (2, 3, 5, 7, 10, 12, 14, 15, 20, 21, 28, 30, 45, 60)
TRIGGERS = ("notice", "request", "signing", "payment")

#: How one clause is arranged. `{p}` party, `{by}` party after "by", `{m}` modal, `{v}` verb, `{d}` participle,
#: `{o}` object, `{t}` period.
FRAMES = {
    "active": "{p} {m} {v} the {o} {t}",
    "period_first": "{t}, {p} {m} {v} the {o}",
    "period_inside": "{p} {m}, {t}, {v} the {o}",
    "passive": "the {o} {m} be {d} {by} {t}",
    "passive_period_first": "{t}, the {o} {m} be {d} {by}",
    "passive_period_inside": "the {o} {m}, {t}, be {d} {by}",
    "agreed": "as agreed, {p} {m} {v} the {o} {t}",
}

#: A skeleton is a heading and the sequence of frames of an excerpt.
SKELETONS = ["/".join(("norland_first", *frames)) for frames in permutations(FRAMES, 3)]
SKELETONS += ["/".join((head, *frames)) for head in HEADS for frames in permutations(FRAMES, 2)]

#: What surrounds the duty asked for: nothing, a clause on the same objects, a clause that permits another party
#: the same act, or such a permission alone.
TRAPS = ("none", "none", "none", "none", "same_object", "same_object", "permission", "only_permitted")

#: How a clause names its party and its period, besides plainly.
PARTY_STYLES = ("plain", "plain", "plain", "plain", "not_after", "not_before")
PERIOD_STYLES = ("plain",) * 5 + ("old_after",) * 2 + ("old_before",) * 2 + ("at_once", "at_once_old")

NO_DUTY = "no duty"
NO_PERIOD = "no days"


@dataclass(frozen=True)
class _Clause:
    """What one clause says; `days` is None where it sets no number of days."""

    party: str
    not_party: str | None
    modal: str
    verb: str
    object: str
    days: int | None
    old_days: int | None

    def as_facts(self) -> dict[str, Any]:
        return {
            "party": self.party,
            "not_party": self.not_party,
            "modal": self.modal,
            "verb": self.verb,
            "object": self.object,
            "days": self.days,
            "old_days": self.old_days,
        }


def draw(rng: Random, skeleton: str, subject: int) -> Item:
    """One excerpt with the frames of `skeleton`, from the contract of `subject`."""
    head, *frames = skeleton.split("/")
    deal = contract(subject)
    verb, thing = rng.choice(list(VERBS)), rng.choice(OBJECTS)
    trap = rng.choice(TRAPS)
    places = list(range(len(frames)))
    rng.shuffle(places)
    asked, trapped = places[0], places[1]
    acts = _acts(rng, verb, thing, len(frames), asked)
    modals = ["shall"] * len(frames)
    if trap == "same_object":
        acts[trapped] = (rng.choice([other for other in VERBS if other != verb]), thing)
    elif trap == "permission":
        acts[trapped], modals[trapped] = (verb, thing), "may"
    elif trap == "only_permitted":
        modals[asked] = "may"
    elif rng.randrange(4) == 0:
        modals[trapped] = "may"
    parties = [deal.performer, deal.payer, *deal.third_parties]
    rng.shuffle(parties)
    days = list(DAYS)
    rng.shuffle(days)
    clauses, lines = [], [heading(deal, head)]
    styles = ("", "")
    for place, frame in enumerate(frames):
        party_style, period_style = rng.choice(PARTY_STYLES), rng.choice(PERIOD_STYLES)
        if place == asked:
            styles = (party_style, period_style)
        clause = _Clause(
            party=parties[place],
            not_party=None if party_style == "plain" else rng.choice([p for p in parties if p != parties[place]]),
            modal=modals[place],
            verb=acts[place][0],
            object=acts[place][1],
            days=None if period_style.startswith("at_once") else days[2 * place],
            old_days=days[2 * place + 1] if "old" in period_style else None,
        )
        clauses.append(clause)
        lines.append(_sentence(clause, frame, party_style, period_style, rng.choice(TRIGGERS)))
    lines.append(f"Duty: {verb} the {thing}")
    if modals[asked] == "may":
        answer = NO_DUTY
    else:
        answer = f"{clauses[asked].party} | {_days(clauses[asked].days)}"
    beside = " ".join(acts[trapped])
    return Item(
        text="\n".join(lines),
        answer=answer,
        skeleton=skeleton,
        composition=f"{verb} {thing} beside {beside}, {trap}, {styles[0]}, {styles[1]}, {asked + 1}/{len(frames)}",
        subject_key=f"contract-{deal.number}",
        facts={
            **citation(f"{deal.kind} contract {deal.number}", deal.year),
            "clauses": [clause.as_facts() for clause in clauses],
            "asked": {"verb": verb, "object": thing},
        },
    )


_ANSWER = re.compile(r"(?:the )?([a-z]+)\s*[|,;:]\s*(?:(\d+)(?: days?)?|no days|none)")


def verify(facts: Mapping[str, Any], output: str) -> Verdict:
    """Look for the clause that orders the act asked for, and compare its party and days."""
    try:
        asked = (facts["asked"]["verb"], facts["asked"]["object"])
        owed = {
            (c["party"], c["days"])
            for c in facts["clauses"]
            if c["modal"] == "shall" and (c["verb"], c["object"]) == asked
        }
    except (KeyError, TypeError):
        return Verdict(None, "the facts lack the clauses or the duty asked for")
    said = " ".join(output.lower().split()).rstrip(".")
    if not owed:
        return Verdict(said == NO_DUTY, "no clause orders it")
    if len(owed) > 1:
        return Verdict(None, "two clauses order it")
    found = _ANSWER.fullmatch(said)
    if found is None:
        return Verdict(False, "not of the form 'party | N days'")
    party, days = owed.pop()
    said_days = int(found[2]) if found[2] else None
    return Verdict((found[1], said_days) == (party, days), "compared with the clause that orders it")


def _acts(rng: Random, verb: str, thing: str, count: int, asked: int) -> list[tuple[str, str]]:
    """An act a clause, on different objects; the one at `asked` is given."""
    things = [other for other in OBJECTS if other != thing]
    rng.shuffle(things)
    acts = [(rng.choice(list(VERBS)), other) for other in things[:count]]
    acts[asked] = (verb, thing)
    return acts


def _sentence(clause: _Clause, frame: str, party_style: str, period_style: str, trigger: str) -> str:
    """The clause in words."""
    text = FRAMES[frame].format(
        p=_party(clause, party_style, ""),
        by=_party(clause, party_style, "by "),
        m=clause.modal,
        v=clause.verb,
        d=VERBS[clause.verb],
        o=clause.object,
        t=_period(clause, period_style, trigger),
    )
    return capital(text) + "."


def _party(clause: _Clause, style: str, by: str) -> str:
    """The bound party in words, with the one that is not bound where the clause names it."""
    if style == "not_after":
        return f"{by}the {clause.party} (not the {clause.not_party})"
    if style == "not_before":
        return f"not {by}the {clause.not_party} but {by}the {clause.party}"
    return f"{by}the {clause.party}"


def _period(clause: _Clause, style: str, trigger: str) -> str:
    """The period in words, with the one that it replaced where the clause names it."""
    if style == "old_after":
        return f"within {clause.days} days (formerly {clause.old_days}) of {trigger}"
    if style == "old_before":
        return f"no longer within {clause.old_days} but within {clause.days} days of {trigger}"
    if style == "at_once":
        return f"without delay after {trigger}"
    if style == "at_once_old":
        return f"without delay (formerly {clause.old_days} days) after {trigger}"
    return f"within {clause.days} days of {trigger}"


def _days(days: int | None) -> str:
    return NO_PERIOD if days is None else f"{days} days"
