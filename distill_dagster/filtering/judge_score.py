"""Judge score: a threshold on the ratings that a teacher gave as a judge (knowledge `feedback`, method `rate`).

A rating belongs to a seed and an answer's text, so it is found for every candidate with that answer to that seed,
whichever kind of knowledge brought it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distill_dagster.config.models import Name, Strict
from distill_dagster.filtering.base import Batch, Context, Look, RuleBase


class Rule(RuleBase):
    """Drops answers that the judge rated below a bound. Of an answer that was rated more than once, the mean counts."""

    version = "1"

    class Params(Strict):
        least: float = Field(description="Lowest score that is kept, on the judge's scale")
        criterion: Name | None = Field(None, description="This criterion alone; by default all of them")
        by: Literal["mean", "lowest"] = Field("mean", description="Of several criteria: their mean, or the lowest one")
        unrated: Literal["keep", "drop"] = Field(
            "drop", description="Answers without a rating: not judged, or judged in a form that does not count"
        )

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: below, unrated; kept ones say unrated or nothing. The score is the judge's."""
        columns = (candidates.column(name) for name in ("seed_record_id", "task", "answer"))
        return [self._one(context.ratings.get(key, {})) for key in zip(*columns, strict=True)]

    def _one(self, rated: dict[str, list[float]]) -> Look:
        wanted = [self.params.criterion] if self.params.criterion is not None else list(rated)
        scores = [sum(rated[name]) / len(rated[name]) for name in wanted if rated.get(name)]
        if not scores:
            return Look(self.params.unrated, "unrated", threshold=self.params.least)
        score = min(scores) if self.params.by == "lowest" else sum(scores) / len(scores)
        detail = ", ".join(f"{name} {sum(given) / len(given):g}" for name, given in sorted(rated.items()))
        below = score < self.params.least
        return Look("drop" if below else "keep", "below" if below else "", score, self.params.least, detail)
