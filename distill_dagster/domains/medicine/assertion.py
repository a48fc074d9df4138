"""Assertion status of a finding in a short note (the task of i2b2 2010, with three more classes).

Every clause gives one status to one or two findings; the last line asks about one finding, so the words of a note
do not tell the class, only the clause that the finding stands in does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from random import Random
from typing import Any

from distill_dagster.domains.base import Item, PromptTemplate, Task, Verdict
from distill_dagster.domains.medicine import words
from distill_dagster.domains.medicine.phrases import (
    CONDITION_CLAUSES,
    MEASURE_CLAUSES,
    STATUSES,
    TIMES_NEXT,
    TIMES_PAST,
)

NAME = "assertion"

TASK = Task(
    name=NAME,
    kind="label",
    title="Assertion status of a finding",
    description="Whether a finding or treatment named in a short note is present, absent, past, planned and so on, "
    "for the patient, a relative or someone else.",
    labels=STATUSES,
    max_new_tokens=6,
)

TEMPLATES = (
    PromptTemplate(
        task=NAME,
        style="full",
        system="You read invented clinical notes and give the status of one finding or treatment. The notes are "
        "fictional and about adults; this is an exercise in reading and no medical advice.\n"
        "Statuses:\n"
        "present: the patient has it now.\n"
        "absent: the note says the patient does not have it.\n"
        "past: the patient had it and no longer has it.\n"
        "family: a blood relative of the patient has or had it.\n"
        "planned: it is decided that it will be done to the patient, without a condition.\n"
        "hypothetical: it is mentioned only for the case that something happens.\n"
        "uncertain: the note leaves open whether the patient has it.\n"
        "other_person: someone who is not a blood relative has or had it.\n"
        "Answer with one of: {{ labels | join(', ') }}. Write the status only.",
        user="{{ input }}",
    ),
    PromptTemplate(task=NAME, style="short", user="status:\n{{ input }}"),
)

_OPENERS = {
    "none": "",
    "age": "{age}-year-old {sex}. ",
    "visit": "Clinic visit, {sex} aged {age}. ",
    "ward": "Seen on the ward: {sex}, {age} years. ",
}
_SEPARATORS = {"stop": ". ", "semi": "; ", "and": ", and ", "but": ", but ", "while": ", while "}
#: How clauses follow one another: what stands between the first and the second, and so on.
_LAYOUTS = (
    "stop-stop", "semi-stop", "stop-semi", "and-stop", "stop-and", "but-stop", "stop-but", "while-stop", "stop-while",
    "stop-semi-stop", "and-stop-but", "but-stop-and", "semi-stop-while", "stop-but-stop", "while-stop-semi",
)  # fmt: skip
#: Voice of each clause: c cue first, f finding first.
_VOICES = ("cccc", "cfcf", "fccf", "ccfc", "cffc")

#: One in four of all arrangements, chosen so that every value of every part occurs with many of the others.
SKELETONS = tuple(
    "/".join(parts)
    for index, parts in (
        (sum(i * w for (i, _), w in zip(combo, (1, 2, 1, 3), strict=True)), tuple(name for _, name in combo))
        for combo in product(enumerate(("she", "note")), enumerate(_OPENERS), enumerate(_LAYOUTS), enumerate(_VOICES))
    )
    if index % 4 == 0
)


def _clause(rng: Random, status: str, kind: str, voice: str, found: list[str], sex: str) -> str:
    clauses = CONDITION_CLAUSES if kind == "condition" else MEASURE_CLAUSES
    one = len(found) == 1
    return rng.choice(clauses[status][voice]).format(
        f=words.join(found, "and"),
        o=words.join(found, "or"),
        s="she" if sex == "woman" else "he",
        h="her" if sex == "woman" else "his",
        p=rng.choice(words.OTHERS if status == "other_person" else words.RELATIVES),
        t=rng.choice(TIMES_PAST),
        n=rng.choice(TIMES_NEXT),
        **({"is": "is", "was": "was"} if one else {"is": "are", "was": "were"}),
    )


def _kind(rng: Random, status: str, asked: bool) -> str:
    if status == "planned":
        return "measure"
    return "measure" if rng.random() < (0.35 if asked else 0.3) else "condition"


def _findings(rng: Random, status: str, kind: str, count: int, used: list[str]) -> list[str]:
    pool = words.CONDITIONS if kind == "condition" else words.MEASURES
    found: list[str] = []
    while len(found) < count:
        name = rng.choice(pool)
        if name not in used and not (status == "family" and name in words.NOT_FAMILIAL):
            used.append(name)
            found.append(name)
    return found


def draw(rng: Random, skeleton: str, subject: int) -> Item:
    """One note: statuses of the clauses first, until the part owns them, then findings and wording."""
    register, opener, layout, voices = skeleton.split("/")
    separators = [_SEPARATORS[name] for name in layout.split("-")]
    count = len(separators) + 1
    label = rng.choice(STATUSES)
    while True:
        others = [status for status in STATUSES if status != label]
        rng.shuffle(others)
        place = rng.randrange(count)
        statuses = [*others[: count - 1]]
        statuses.insert(place, label)
        kinds = [_kind(rng, status, index == place) for index, status in enumerate(statuses)]
        sizes = [2 if rng.random() < 0.3 else 1 for _ in statuses]
        composition = " ".join(
            f"{'>' if index == place else ''}{status}:{kind[0]}{size}"
            for index, (status, kind, size) in enumerate(zip(statuses, kinds, sizes, strict=True))
        )
        if words.owned(NAME, composition, subject):
            break
    sex = rng.choice(("woman", "man"))
    used: list[str] = []
    clauses: list[str] = []
    asked = ""
    for index, (status, kind, size) in enumerate(zip(statuses, kinds, sizes, strict=True)):
        found = _findings(rng, status, kind, size, used)
        voice = "tail" if voices[index] == "f" else register
        clauses.append(_clause(rng, status, kind, voice, found, sex))
        if index == place:
            asked = rng.choice(found)
    note = words.sentence(clauses[0])
    for separator, clause in zip(separators, clauses[1:], strict=True):
        note += separator + (words.sentence(clause) if separator == ". " else clause)
    opening = _OPENERS[opener].format(age=words.adult_age(rng), sex=sex)
    return Item(
        text=f"{words.sentence(opening)}{note}.\nFinding: {asked}",
        answer=label,
        skeleton=skeleton,
        composition=composition,
        subject_key=words.patient_key(subject),
        facts={"clauses": clauses, "asked": asked},
    )


_RELATIVE = "|".join(words.RELATIVES)
_OTHER = "|".join(words.OTHERS)
#: Cues in the order in which they decide: who it is about before whether, a condition before a plan.
_CUES = (
    ("family", re.compile(rf"\b({_RELATIVE})\b")),
    ("other_person", re.compile(rf"\b({_OTHER})\b")),
    ("uncertain", re.compile(r"\b(may|unclear|possible|not sure|cannot be ruled out)\b")),
    ("hypothetical", re.compile(r"\b(if|would)\b")),
    ("planned", re.compile(r"\b(will start|to start|booked)\b")),
    ("past", re.compile(r"\b(had|no longer|resolved|ended)\b")),
    ("present", re.compile(r"\bno change\b")),
    ("absent", re.compile(r"\b(no|not|denies|denied|absent)\b")),
    ("present", re.compile(r"")),
)


def verify(facts: Mapping[str, Any], output: str) -> Verdict:
    """Read the one clause that names the finding, by cue words in the manner of NegEx (Chapman et al. 2001)."""
    answer = output.strip().strip(".").lower().replace(" ", "_")
    clauses, asked = facts.get("clauses"), facts.get("asked")
    if not clauses or not asked:
        return Verdict(None, "the facts name no clauses or no finding")
    naming = [clause for clause in clauses if re.search(rf"\b{re.escape(asked)}\b", clause)]
    if len(naming) != 1:
        return Verdict(None, f"{len(naming)} clauses name {asked}")
    status = next(status for status, cue in _CUES if cue.search(naming[0]))
    if answer == status:
        return Verdict(True)
    return Verdict(False, f"the clause {naming[0]!r} makes it {status}")
