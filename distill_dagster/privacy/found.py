"""What a detector says: where an identifier stands and of what kind it is, never more than that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Finding(NamedTuple):
    """A stretch of a text that holds an identifier or a secret.

    Attributes:
        start: First character.
        end: One past the last character.
        kind: What it is, in the words of a mask: `EMAIL`, `CARD`, `API_KEY`.
        value: The value without what may be written one way or another (case, separators): equal for equal things.
            It never leaves the process.
    """

    start: int
    end: int
    kind: str
    value: str


def joined(findings: Iterable[Finding], rank: Sequence[str]) -> list[Finding]:
    """Findings in order, those that overlap made one: of the kind that stands first in `rank`, over all they cover."""
    place = {kind: number for number, kind in enumerate(rank)}
    result: list[Finding] = []
    for found in sorted(findings):
        if result and found.start < result[-1].end:
            last = result[-1]
            better = min(last, found, key=lambda one: (place.get(one.kind, len(place)), one.start - one.end))
            result[-1] = Finding(last.start, max(last.end, found.end), better.kind, better.value)
        else:
            result.append(found)
    return result
