"""Verifier: the domain recomputes the answer from the seed's own facts, never from gold."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.filtering.base import Batch, Context, Look, RuleBase


class Rule(RuleBase):
    """Drops answers that the domain's verifier finds wrong. What it cannot tell is kept, and the look says so."""

    version = "1"

    class Params(Strict):
        tasks: list[str] | None = Field(None, description="Verify these tasks only; all by default")
        undecided: Literal["keep", "drop"] = "keep"

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: wrong, undecided; kept ones say verified, undecided, no_facts, no_verifier or not_asked.

        The score is 1 for right, 0 for wrong, and absent where nothing was decided.
        """
        columns = (candidates.column(name) for name in ("task", "answer"))
        rows = zip(*columns, candidates.seeds, strict=True)
        return [self._one(task, answer, seed, context) for task, answer, seed in rows]

    def _one(self, task: str, answer: str | None, seed, context: Context) -> Look:
        if self.params.tasks is not None and task not in self.params.tasks:
            return Look(reason="not_asked")
        if context.verify is None:
            return self._undecided("no_verifier", None)
        facts = json.loads(seed["facts"]) if seed is not None and seed.get("facts") else None
        if not facts:
            return self._undecided("no_facts", None)
        verdict = context.verify(task, facts, answer or "")
        if verdict.ok is None:
            return self._undecided("undecided", verdict.reason)
        if verdict.ok:
            return Look(reason="verified", score=1.0, threshold=1.0, detail=verdict.reason or None)
        return Look("drop", "wrong", 0.0, 1.0, verdict.reason or None)

    def _undecided(self, reason: str, detail: str | None) -> Look:
        return Look(self.params.undecided, reason, detail=detail or None)
