"""Which part a seed row belongs to: decided by a hash of its subject or input, not by its place in the file.

Rows of one subject, and rows with the same input, context and choices, are one unit and land in one part. With shares
alone, adding a record moves no other; a count moves at most what stands at its edge. A row that links two units joins
them.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from distill_dagster.config.models import Split
from distill_dagster.domains.base import SEED_PARTS
from distill_dagster.records.messages import joined, rest_of

_PARTS = (*SEED_PARTS, "validation")


def folded(text: str) -> str:
    """The text with case, compatibility forms (NFKC) and white space folded: what makes two inputs the same."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _point(seed: int, purpose: str, unit: str) -> float:
    """A number in [0, 1) that the unit alone decides."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{unit}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def _names(row: Mapping[str, Any]) -> tuple[str, str | None]:
    text = "input:" + hashlib.sha256(folded(joined(row["input"], rest_of(row))).encode()).hexdigest()
    return text, None if row["subject_key"] is None else f"subject:{row['subject_key']}"


def names(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of all inputs and subjects of the rows: two sets of rows are disjoint where these are."""
    return {name for row in rows for name in _names(row) if name is not None}


def units(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The unit of each row: the least name among all that hang together.

    Keys of a row: `input` and `subject_key`; `context` and `choices` where it has them.
    """
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            above[name] = above[above[name]]
            name = above[name]
        return name

    own = []
    for row in rows:
        text, subject = _names(row)
        own.append(text)
        if subject is not None:
            first, second = sorted((top(text), top(subject)))
            above[second] = first
    return [top(name) for name in own]


def assign(rows: Sequence[Mapping[str, Any]], split: Split) -> list[str | None]:
    """The part of each row: teacher, gold, unlabeled, validation, or None where the shares leave a rest."""
    own = units(rows)
    sizes: dict[str, int] = {}
    for unit in own:
        sizes[unit] = sizes.get(unit, 0) + 1
    order = sorted(sizes, key=lambda unit: (_point(split.seed, "count", unit), unit))
    parts: dict[str, str] = {}
    start = 0
    for part in _PARTS:
        wanted = float(getattr(split, part))
        taken = 0
        while wanted > 1 and taken < wanted and start < len(order):
            parts[order[start]] = part
            taken += sizes[order[start]]
            start += 1
    for unit in order[start:]:
        point = _point(split.seed, "share", unit)
        edge = 0.0
        for part in _PARTS:
            share = float(getattr(split, part))
            edge += share if share <= 1 else 0.0
            if point < edge:
                parts[unit] = part
                break
    return [parts.get(unit) for unit in own]
