"""Exact duplicates: the same input, context and choices, with case and white space folded, within a task."""

from __future__ import annotations

from distill_dagster.config.models import Strict
from distill_dagster.filtering._groups import Per, groups
from distill_dagster.filtering._text import fold
from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase


class Rule(RuleBase):
    """Keeps the first candidate of each folded input."""

    version = "2"

    class Params(Strict):
        per: Per = "input"

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reason: none beside the rule's name; `twin` is the first."""
        group = groups(candidates, self.params.per)
        order, _ = candidates.survivors_first()
        first: dict[tuple[int, str], int] = {}
        looks = [KEEP] * len(candidates)
        for row in order.tolist():
            key = (int(group[row]), fold(candidates.asked[row]))
            number = candidates.numbers[row]
            if key in first:
                looks[row] = Look("drop", score=1.0, threshold=1.0, detail=f"twin {first[key]}", twin=first[key])
            elif not candidates.dropped[row]:
                first[key] = number
        return looks
