"""Random graphs of small nodes, with a plain model of what a run must remake."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hypothesis import strategies as st

from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records import tables
from distill_dagster.storage.store import Key

PARTS = ("gold", "unlabeled")


@dataclass
class Spec:
    """One node: what it makes of its parents, and what it reads of each.

    Attributes:
        parents: Index of a parent → the part that is read, or None for all of it.
        salt: Identity config.
        outside: Identity of what lies outside.
        moves: Parts of its own content that follow its inputs; the others stay as they are.
    """

    parents: dict[int, str | None]
    salt: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    outside: int = 0
    moves: tuple[str, ...] = PARTS


def key(number: int) -> Key:
    """Key of a node; every one may be promoted."""
    return (f"dag_{number}", "deployed_student")


def content(specs: Mapping[int, Spec], number: int) -> dict[str, str]:
    """What each part of a node says, worked out from the specifications alone."""
    spec = specs[number]
    above = [
        content(specs, parent) if part is None else {part: content(specs, parent)[part]}
        for parent, part in sorted(spec.parents.items())
    ]
    return {part: f"{number}:{spec.salt[part]}:{spec.outside}:{above if part in spec.moves else ''}" for part in PARTS}


def action(specs: Mapping[int, Spec], number: int) -> str:
    """What a node's action depends on, worked out from the specifications alone."""
    spec = specs[number]
    read = {
        parent: content(specs, parent) if part is None else content(specs, parent)[part]
        for parent, part in sorted(spec.parents.items())
    }
    return repr((spec.salt, spec.outside, read))


def nodes(specs: Mapping[int, Spec], made: list[int] | None = None) -> dict[Key, Node]:
    """The graph; `made` gathers the numbers of nodes that are really made."""

    def node(number: int, spec: Spec) -> Node:
        def make(job: Job) -> None:
            if made is not None:
                made.append(number)
            text = content(specs, number)
            # Read what the engine handed over, so that a wrong parent version would show.
            for parent, part in spec.parents.items():
                read = {row["part"]: row["answer"] for row in job.inputs[str(parent)].table("seed").to_pylist()}
                for one in PARTS if part is None else (part,):
                    assert read[one] == content(specs, parent)[one]
            rows = [{"task": "t", "part": part, "answer": text[part]} for part in PARTS]
            job.draft.write_table("seed", tables.build("seed", rows), by="part")

        parents = tuple(
            Parent(str(parent), key(parent), None if part is None else {"seed": (part,)})
            for parent, part in sorted(spec.parents.items())
        )
        return Node(key(number), "1", parents, {"salt": dict(spec.salt)}, make, lambda: {"outside": spec.outside})

    return {key(number): node(number, spec) for number, spec in specs.items()}


@st.composite
def dags(draw, most: int = 6) -> dict[int, Spec]:
    """Specifications of a graph; parents have lower numbers."""
    specs: dict[int, Spec] = {}
    for number in range(draw(st.integers(1, most))):
        above = draw(st.sets(st.sampled_from(range(number)), max_size=3)) if number else set()
        reads = {parent: draw(st.sampled_from([None, *PARTS])) for parent in sorted(above)}
        moves = draw(st.sampled_from([PARTS, PARTS, ("gold",), ()]))
        specs[number] = Spec(reads, moves=moves)
    return specs


@st.composite
def changes(draw, specs: dict[int, Spec]) -> None:
    """Change some nodes in place: one part's config, or what lies outside."""
    for number in draw(st.sets(st.sampled_from(sorted(specs)), min_size=0, max_size=2)):
        what = draw(st.sampled_from([*PARTS, "outside"]))
        if what == "outside":
            specs[number].outside += 1
        else:
            specs[number].salt[what] += 1
