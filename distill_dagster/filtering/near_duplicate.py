"""Near duplicates: inputs that share most of their word 3-shingles within a task, figures being equal.

MinHash finds them and the exact Jaccard similarity decides (see `_minhash`). Where records have a context or choices,
input and context both have to be near: many questions share a passage, and many passages a question.
"""

from __future__ import annotations

from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.filtering._groups import Per, groups
from distill_dagster.filtering._minhash import Numbers, stand_ins
from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase


class Rule(RuleBase):
    """Drops a candidate whose input is near that of a kept one before it."""

    version = "2"

    class Params(Strict):
        threshold: float = Field(0.8, gt=0, le=1, description="Jaccard similarity from which two inputs are one")
        numbers: Numbers = Field("distinct", description="distinct: inputs with other figures are never duplicates")
        per: Per = "input"

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reason: none beside the rule's name; the score is the similarity to `twin`."""
        order, alive = candidates.survivors_first()
        parts = [[part[row] for row in order.tolist()] for part in (candidates.inputs, candidates.rests)]
        texts = [candidates.asked[row] for row in order.tolist()]
        threshold = self.params.threshold
        twins, scores = stand_ins(
            texts,
            threshold,
            numbers=self.params.numbers,
            groups=groups(candidates, self.params.per)[order],
            anchors=alive,
            parts=parts if any(candidates.rests) else (),
        )
        looks = [KEEP] * len(candidates)
        for place, row in enumerate(order.tolist()):
            if twins[place] >= 0:
                twin = candidates.numbers[int(order[twins[place]])]
                looks[row] = Look("drop", "", float(scores[place]), threshold, f"twin {twin}", twin)
        return looks
