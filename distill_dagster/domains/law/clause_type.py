"""Label task `clause_type`: of which type is the clause that the last line points to?

An excerpt has two or three lettered clauses of different types. Each clause also names other types in its topic
and in its condition, so the words of the excerpt do not tell the answer; the operative phrase of the clause does.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from random import Random
from typing import Any

from distill_dagster.domains.base import Item, Task, Verdict
from distill_dagster.domains.law.clause_words import BINDS, CONDITIONS, CUES, LABELS, TOPICS, Cue
from distill_dagster.domains.law.words import Contract, capital, citation, contract, heading

TASK = Task(
    name="clause_type",
    kind="label",
    title="Clause type",
    description="Type of one clause in a short contract excerpt, told by what the clause orders or permits.",
    labels=LABELS,
    max_new_tokens=12,
)

#: How one clause is arranged. `{p}` party, `{m}` modal, `{a}` verb phrase, `{s}` passive clause, `{c}` condition.
FRAMES = {
    "active": "{p} {m} {a}",
    "condition_first": "{c}, {p} {m} {a}",
    "condition_last": "{p} {m} {a} {c}",
    "aside": "{p} {m}, {c}, {a}",
    "passive": "{s}",
    "passive_condition": "{c}, {s}",
    "agreed": "as agreed, {p} {m} {a}",
}

#: A skeleton is a heading and the sequence of frames of an excerpt; at most two frames hold a condition.
SKELETONS = [
    "/".join((head, *frames))
    for head, size in (("norland_first", 3), ("norland_first", 2), ("kind_first", 2))
    for frames in permutations(FRAMES, size)
    if sum("{c}" in FRAMES[frame] for frame in frames) <= 2
]

#: Clause numbers are letters, so that no digit of a contract number looks like one.
LETTERS = "ABC"


def draw(rng: Random, skeleton: str, subject: int) -> Item:
    """One excerpt with the frames of `skeleton`, from the contract of `subject`."""
    head, *frames = skeleton.split("/")
    deal = contract(subject)
    label = rng.choice(LABELS)
    pointed = rng.randrange(len(frames))
    types = [other for other in LABELS if other != label]
    rng.shuffle(types)
    types = [*types[:pointed], label, *types[pointed : len(frames) - 1]]
    lines = [heading(deal, head)]
    operative = []
    for place, (kind, frame) in enumerate(zip(types, frames, strict=True)):
        chosen = rng.randrange(len(CUES[kind]))
        operative.append(f"{kind}.{chosen}")
        lines.append(f"{LETTERS[place]}. {_clause(rng, kind, CUES[kind][chosen], frame, deal)}")
    lines.append(f"Clause: {LETTERS[pointed]}")
    return Item(
        text="\n".join(lines),
        answer=label,
        skeleton=skeleton,
        composition=f"{LETTERS[pointed]} of {','.join(operative)}",
        subject_key=f"contract-{deal.number}",
        facts={
            **citation(f"{deal.kind} contract {deal.number}", deal.year),
            "clauses": len(frames),
            "asked_clause": LETTERS[pointed],
        },
    )


def verify(facts: Mapping[str, Any], output: str) -> Verdict:
    """Reject what is no clause type. Which type is right the facts do not tell."""
    if output.strip().lower() not in LABELS:
        return Verdict(False, "not one of the clause types")
    return Verdict(None, "the facts do not tell the type of a clause")


def _clause(rng: Random, kind: str, cue: Cue, frame: str, deal: Contract) -> str:
    """One clause of type `kind`; its topic and condition speak of other types."""
    role = BINDS.get(kind) or rng.choice(("performer", "payer"))
    party = f"the {deal.performer if role == 'performer' else deal.payer}"
    filling: dict[str, str] = {"p": party}
    about = ""
    for slot, topics in TOPICS.items():
        if f"{{{slot}}}" in cue.active:
            about, filling[slot] = rng.choice([topic for topic in topics if topic[0] != kind])
    condition = rng.choice([phrase for other, phrase in CONDITIONS if other not in (kind, about)])
    text = FRAMES[frame].format(
        p=party, m=cue.modal, a=cue.active.format(**filling), s=cue.passive.format(**filling), c=condition
    )
    return capital(text) + "."
