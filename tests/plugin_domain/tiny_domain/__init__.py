"""A toy domain: which of two parcels arrived. It shows what a plugin needs, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from distill_dagster.domains.base import Domain, Item, PromptTemplate, Task, Verdict
from distill_dagster.domains.grammar import Grammar

COLOURS = ("red", "green", "blue", "white")
OPENINGS = ("", "Note: ", "Today: ", "For the record: ", "From the depot: ")
JOINS = ("; ", ", while ", ", and ", ". Also, ")
ARRIVED = ("the {} parcel has arrived", "the {} parcel came in", "we received the {} parcel", "the {} parcel is here")
LOST = (
    "the {} parcel is missing",
    "the {} parcel did not come",
    "nobody has seen the {} parcel",
    "the {} parcel is late",
)

SKELETONS = [
    f"{opening}/{join}/{order}"
    for opening in range(len(OPENINGS))
    for join in range(len(JOINS))
    for order in ("arrived-first", "lost-first")
]

TASK = Task(
    name="parcel",
    kind="label",
    title="Parcel that arrived",
    description="The colour of the one parcel that arrived, of two that are named.",
    labels=COLOURS,
    max_new_tokens=4,
)


def draw(rng: Random, skeleton: str, subject: int) -> Item:
    """One item: two parcels, of which one arrived."""
    opening, join, order = skeleton.split("/")
    answer = rng.choice(COLOURS)
    other = rng.choice([colour for colour in COLOURS if colour != answer])
    arrived, lost = rng.randrange(len(ARRIVED)), rng.randrange(len(LOST))
    facts = [ARRIVED[arrived].format(answer), LOST[lost].format(other)]
    if order == "lost-first":
        facts.reverse()
    text = f"{OPENINGS[int(opening)]}{JOINS[int(join)].join(facts)}. Depot {subject}."
    return Item(
        text=text[0].upper() + text[1:],
        answer=answer,
        skeleton=skeleton,
        composition=f"{answer}.{arrived}+{other}.{lost}",
        subject_key=f"depot-{subject}",
        facts={"parcels": sorted((answer, other))},
    )


GRAMMAR = Grammar("tinydomain", "parcel", SKELETONS, draw)


def items(task: str, part: str, count: int, seed: int) -> Iterator[Item]:
    """Authored items of the one task."""
    return GRAMMAR.items(part, count, seed)


def verify(task: str, facts: Mapping[str, Any], output: str) -> Verdict:
    """A colour that the text does not name is wrong; of the two that it names, the verifier cannot tell."""
    if "parcels" not in facts:
        return Verdict(None, "no facts")
    if output.strip().lower() not in facts["parcels"]:
        return Verdict(False, "the text names no such parcel")
    return Verdict(None, "named")


def domain() -> Domain:
    """Entry point of the plugin."""
    return Domain(
        name="tinydomain",
        title="Tiny domain",
        description="A toy, to show that a plugin from elsewhere is a domain like any other.",
        owners=("team:tiny",),
        tasks=(TASK,),
        templates=(
            PromptTemplate(
                "parcel",
                "full",
                system="Say which parcel arrived. Answer with one of: {{ labels | join(', ') }}.",
                user="{{ input }}",
            ),
            PromptTemplate("parcel", "short", user="parcel:\n{{ input }}"),
        ),
        items=items,
        verify=verify,
        notice="A toy.",
    )
