"""Truncation: answers that were cut at the token limit."""

from __future__ import annotations

from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase


class Rule(RuleBase):
    """Drops answers whose finish reason is `length`: what a teacher had no room to say is not what it thinks."""

    version = "1"

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reason: none beside the rule's name."""
        cut = Look("drop", detail="finish_reason length")
        return [cut if reason == "length" else KEEP for reason in candidates.column("finish_reason")]
