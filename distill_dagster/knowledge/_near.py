"""Which seeds stand together in a prompt: a choice by hash, so that a changed seed changes few prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill_dagster.records.identity import digest

Seed = Mapping[str, Any]


def point(record: str, salt: str) -> int:
    """A place on a ring of 2^64, for a record under a salt."""
    return int(digest([salt, record])[:16], 16)


def share_of(seeds: Sequence[Seed], share: float, salt: str) -> list[Seed]:
    """About that share of the seeds; whether one is among them depends on itself alone."""
    return [seed for seed in seeds if point(seed["record_id"], salt) < share * 2**64]


def neighbours(seeds: Sequence[Seed], count: int, salt: str) -> dict[str, list[Seed]]:
    """For each record id the `count` other records that follow it on the ring.

    A record that comes, goes or changes is seen by the `count` records before each of its places, and by no other.
    """
    distinct = {seed["record_id"]: seed for seed in seeds}
    ring = sorted(distinct, key=lambda record: (point(record, salt), record))
    found = {}
    for at, record in enumerate(ring):
        following = [ring[(at + step) % len(ring)] for step in range(1, min(count, len(ring) - 1) + 1)]
        found[record] = [distinct[other] for other in following]
    return found
