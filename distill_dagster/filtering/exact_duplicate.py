"""Exact duplicates: the same input, context and choices, with case and white space folded, within a task.

An input that a teacher wrote is held against gold as well: the data set has that question already, with the answer of
a person.
"""

from __future__ import annotations

from distill_dagster.config.models import Strict
from distill_dagster.filtering._groups import Per, groups
from distill_dagster.filtering._text import fold
from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase
from distill_dagster.records.messages import joined, rest_of, text_of


class Rule(RuleBase):
    """Keeps the first candidate of each folded input, and none that a teacher wrote as gold has it."""

    version = "3"

    class Params(Strict):
        per: Per = "input"

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: gold (`detail` names the record), or none beside the rule's name; `twin` is the first."""
        gold = {
            (seed["task"], fold(joined(text_of(seed["messages"]), rest_of(seed)))): seed["record_id"]
            for seed in (context.seeds.values() if context.inputs else ())
            if seed["part"] == "gold"
        }
        tasks = candidates.column("task")
        group = groups(candidates, self.params.per)
        order, _ = candidates.survivors_first()
        first: dict[tuple[int, str], int] = {}
        looks = [KEEP] * len(candidates)
        for row in order.tolist():
            key = (int(group[row]), fold(candidates.asked[row]))
            number = candidates.numbers[row]
            known = gold.get((tasks[row], key[1])) if number in context.inputs else None
            if known is not None:
                looks[row] = Look("drop", "gold", 1.0, 1.0, known)
            elif key in first:
                looks[row] = Look("drop", score=1.0, threshold=1.0, detail=f"twin {first[key]}", twin=first[key])
            elif not candidates.dropped[row]:
                first[key] = number
        return looks
