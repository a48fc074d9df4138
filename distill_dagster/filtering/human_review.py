"""Human review: what people who read a sample of the data said of it (docs/review.md)."""

from __future__ import annotations

from distill_dagster.filtering.base import Batch, Context, Look, RuleBase


class Rule(RuleBase):
    """Drops what reviewers rejected. It follows the other rules by itself where the pipeline has `review`.

    Last is the best place: a record that takes the place of a rejected twin would be one that nobody has read. How
    verdicts count, and what becomes of records that nobody has judged, stands in `review`.
    """

    version = "1"

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: rejected, critical, unsure, disputed, unreviewed; kept ones say accepted or unreviewed.

        The score is the share of the reviewers who accept; the detail is who said what.
        """
        looks = []
        for record in candidates.column("record_id"):
            found = context.reviews.get(record)
            if found is None:
                looks.append(Look(context.unreviewed, "unreviewed"))
            else:
                verdict = "keep" if found.verdict == "accept" else "drop"
                looks.append(Look(verdict, found.reason, found.score, detail=found.detail))
        return looks
