"""Source cap: no source, licence or subject gives more than its share of the training data."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from distill_dagster.config.models import Strict
from distill_dagster.errors import DistillError
from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase

By = Literal["source_id", "licence", "language", "subject_key", "task", "answer"]


class Rule(RuleBase):
    """Keeps at most so many candidates of each source, those with the smallest hashes of their content.

    So the choice depends on no order, and a candidate that is added displaces one other at most. Put it last: what a
    later rule drops leaves its place empty.
    """

    version = "1"

    class Params(Strict):
        by: By = Field("source_id", description="What is capped; all but `task` and `answer` are the seed's")
        most: int | None = Field(None, ge=1, description="Candidates of each")
        share: float | None = Field(None, gt=0, lt=1, description="Largest share of all that are kept")
        salt: str = Field("", description="Another salt chooses others")

        @model_validator(mode="after")
        def _some_cap(self):
            if self.most is None and self.share is None:
                raise ValueError("give `most`, `share`, or both")
            return self

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reason: none beside the rule's name. The score is the place in the order of hashes, from 1."""
        groups = self._groups(candidates, context)
        ids = candidates.column("record_id")
        order = sorted(
            (row for row in range(len(candidates)) if not candidates.dropped[row]),
            key=lambda row: (_hash(self.params.salt, ids[row]), candidates.numbers[row]),
        )
        most = self._most(Counter(groups[row] for row in order))
        looks = [KEEP] * len(candidates)
        taken: Counter[str] = Counter()
        for row in order:
            taken[groups[row]] += 1
            place = taken[groups[row]]
            looks[row] = Look("drop" if place > most else "keep", "", place, most, groups[row])
        return looks

    def _groups(self, candidates: Batch, context: Context) -> list[str]:
        by = self.params.by
        if by in ("task", "answer"):
            return [value or "" for value in candidates.column(by)]
        seeds = [context.seeds.get(number) for number in candidates.column("seed_no")]
        return [(seed or {}).get(by) or "unknown" for seed in seeds]

    def _most(self, sizes: Mapping[str, int]) -> int:
        """The cap: the largest one that both `most` and `share` allow."""
        largest = max(sizes.values(), default=0)
        most = min(self.params.most or largest, largest)
        share = self.params.share
        if share is None or len(sizes) == 0:
            return most
        # Cutting the large ones makes the whole smaller too; c ≤ share · Σ min(size, c) holds up to one largest c.
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if middle <= share * sum(min(size, middle) for size in sizes.values()) + 1e-9:
                low = middle
            else:
                high = middle - 1
        if low == 0:
            raise DistillError(
                f"filtering rule source_cap, by {self.params.by}",
                f"a share of {share:g} each cannot hold with {len(sizes)}: {', '.join(sorted(sizes)[:5])}.",
                f"Give a share of {1 / len(sizes):.2g} or more, or add sources.",
            )
        return low


def _hash(salt: str, record: str) -> bytes:
    return hashlib.sha256(f"{salt}\0{record}".encode()).digest()
