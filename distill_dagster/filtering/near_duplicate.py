"""Near duplicates: inputs that share most of their word 3-shingles within a task, figures being equal.

MinHash finds them and the exact Jaccard similarity decides (see `_minhash`).
"""

from __future__ import annotations

from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.filtering._groups import Per, groups
from distill_dagster.filtering._minhash import Numbers, stand_ins
from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase


class Rule(RuleBase):
    """Drops a candidate whose input is near that of a kept one before it."""

    version = "1"

    class Params(Strict):
        threshold: float = Field(0.8, gt=0, le=1, description="Jaccard similarity from which two inputs are one")
        numbers: Numbers = Field("distinct", description="distinct: inputs with other figures are never duplicates")
        per: Per = "input"

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reason: none beside the rule's name; the score is the similarity to `twin`."""
        order, alive = candidates.survivors_first()
        texts = [candidates.inputs[row] for row in order.tolist()]
        threshold = self.params.threshold
        twins, scores = stand_ins(
            texts,
            threshold,
            numbers=self.params.numbers,
            groups=groups(candidates, self.params.per)[order],
            anchors=alive,
        )
        looks = [KEEP] * len(candidates)
        for place, row in enumerate(order.tolist()):
            if twins[place] >= 0:
                twin = candidates.numbers[int(order[twins[place]])]
                looks[row] = Look("drop", "", float(scores[place]), threshold, f"twin {twin}", twin)
        return looks
