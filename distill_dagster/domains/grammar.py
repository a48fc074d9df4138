"""Seeded grammars: deterministic authored items, split by skeleton, composition and subject.

A task's author writes skeletons (arrangements of information) and a `draw` function. This module decides which
part may use which skeleton, composition and subject, draws until an item belongs to its part, and drops repeats.
The result depends on task, part, seed and position only: not on the machine, the Python version or the count.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from random import Random

from distill_dagster.domains.base import PARTS, Item

#: Share of skeletons, compositions and subjects that each part owns.
SHARES = {"teacher": 0.50, "gold": 0.10, "unlabeled": 0.22, "validation": 0.06, "test": 0.12}

#: Subjects come in blocks of a hundred numbers; a part owns the numbers whose residue falls in its share.
#: With 100 blocks the gold part draws from 1,000 subjects, so subjects recur within a part as they do in life.
SUBJECT_BLOCKS = 100


def _residue(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100


def owner(task: str, composition: str) -> str:
    """Part that owns a composition of a task."""
    return part_of(_residue(f"{task}/{composition}"))


def part_of(residue: int) -> str:
    """Part that owns a residue of 0 to 99, by `SHARES`."""
    edge = 0.0
    for part in PARTS:
        edge += SHARES[part] * 100
        if residue < round(edge):
            return part
    return PARTS[-1]


def assign_skeletons(task: str, skeletons: Sequence[str]) -> dict[str, list[str]]:
    """Divide skeletons over the parts by share, each part at least one, in an order that the hash decides."""
    if len(skeletons) < len(PARTS):
        raise ValueError(f"task {task}: {len(skeletons)} skeletons cannot be divided over {len(PARTS)} parts")
    order = sorted(skeletons, key=lambda name: hashlib.sha256(f"{task}/{name}".encode()).digest())
    counts = {part: max(1, int(SHARES[part] * len(order))) for part in PARTS}
    counts["teacher"] += len(order) - sum(counts.values())
    assigned: dict[str, list[str]] = {}
    start = 0
    for part in PARTS:
        assigned[part] = order[start : start + counts[part]]
        start += counts[part]
    return assigned


def subject_number(rng: Random, part: str) -> int:
    """A subject number that only `part` may use."""
    low = 0
    for name in PARTS[: PARTS.index(part)]:
        low += round(SHARES[name] * 100)
    return rng.randrange(SUBJECT_BLOCKS) * 100 + low + rng.randrange(round(SHARES[part] * 100))


class Grammar:
    """Items of one task.

    Args:
        domain: Domain name, part of the seed.
        task: Task name, part of the seed.
        skeletons: At least 60 skeleton ids.
        draw: `draw(rng, skeleton, subject)` makes one item from a skeleton and a subject number. It must use
            `rng` for every choice, and set `item.skeleton` and `item.composition`.
    """

    def __init__(
        self, domain: str, task: str, skeletons: Sequence[str], draw: Callable[[Random, str, int], Item]
    ) -> None:
        if len(set(skeletons)) != len(skeletons):
            raise ValueError(f"{domain}/{task}: a skeleton id is listed twice")
        self.domain, self.task, self.draw = domain, task, draw
        self.skeletons = list(skeletons)
        self.assigned = assign_skeletons(f"{domain}/{task}", skeletons)

    def items(self, part: str, count: int, seed: int) -> Iterator[Item]:
        """Yield `count` distinct items of a part. ValueError when the grammar cannot make that many."""
        own = self.assigned[part]
        seen: set[str] = set()
        misses = 0
        made = 0
        index = 0
        while made < count:
            rng = Random(f"{self.domain}/{self.task}/{part}/{seed}/{index}")
            index += 1
            item = self.draw(rng, own[rng.randrange(len(own))], subject_number(rng, part))
            if owner(self.task, item.composition) != part or item.text in seen:
                misses += 1
                if misses > 5000:
                    raise ValueError(
                        f"{self.domain}/{self.task}: no new item for part {part!r} in 5000 draws "
                        f"after {made} of {count}; the grammar has too few skeletons or compositions for that many"
                    )
                continue
            misses = 0
            seen.add(item.text)
            made += 1
            yield item


_NUMBER = re.compile(r"\d[\d,.:/]*")
_NAME = re.compile(r"(?<=[a-z,;:] )[A-Z][\w'&-]+(?: [A-Z][\w'&-]+)*")


def mask(text: str) -> str:
    """Text with numbers and capitalised names inside sentences masked, as the distinctness rule counts it."""
    return _NUMBER.sub("#", _NAME.sub("@", text))
