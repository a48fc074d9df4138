"""What a pipeline's teacher costs and may cost: prices and budget around it, and what kept records came to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from distill_dagster.stages.context import PipelineContext
from distill_dagster.teachers._journal import JournalStore, Settled
from distill_dagster.teachers.base import Request, Teacher, request_key
from distill_dagster.teachers.budget import Budgeted
from distill_dagster.teachers.prices import Priced, Tariff, money, tariff_on


def tariff_of(pipeline: PipelineContext) -> Tariff | None:
    """Today's price of the teacher's model, where the teacher names prices.

    Raises:
        ConfigError: They have no price of it that has begun.
    """
    if pipeline.prices is None:
        return None
    endpoint = pipeline.teacher.endpoint
    return tariff_on(pipeline.prices, pipeline.teacher.model, batch=endpoint is not None and endpoint.mode == "batch")


def metered(pipeline: PipelineContext, teacher: Teacher, store: JournalStore, requests: Sequence[Request]) -> Teacher:
    """The teacher with its prices and its budget, ready to be asked these questions."""
    tariff = tariff_of(pipeline)
    if tariff is not None:
        teacher = Priced(teacher, tariff)
    if pipeline.teacher.budget is not None:
        teacher = Budgeted(teacher, pipeline.teacher.budget)
        teacher.begin(store, requests, pipeline.namespace)
    return teacher


class Tally:
    """What the calls of one asking have come to so far, for whoever watches: tokens, money, failures by class, rate.

    Args:
        tariff: The teacher's prices, where it has any.
    """

    def __init__(self, tariff: Tariff | None) -> None:
        self.tariff, self.start = tariff, time.monotonic()
        self.calls = self.tokens = self.cost_micros = 0
        self.failures: Counter[str] = Counter()

    def add(self, outcomes: Sequence[Settled]) -> None:
        """Count outcomes, failed attempts that will be repeated included."""
        for outcome in outcomes:
            self.calls += 1
            counts = (outcome.response.input_tokens, outcome.response.output_tokens)
            self.tokens += sum(count for count in counts if isinstance(count, int))
            self.cost_micros += outcome.cost_micros
            if outcome.response.failure is not None:
                self.failures[outcome.response.failure] += 1

    def note(self, what: str) -> str:
        """A line for people: `teacher: labeling, round 1, 120 calls (40/s), 9,000 tokens, 0.02 EUR, timeout 2`."""
        if not self.calls:
            return what
        rate = self.calls / max(time.monotonic() - self.start, 1e-3)
        parts = [what, f"{self.calls:,} calls ({rate:,.0f}/s)", f"{self.tokens:,} tokens"]
        if self.tariff is not None:
            parts.append(money(self.cost_micros, self.tariff.currency))
        parts += [f"{name} {count:,}" for name, count in self.failures.most_common()]
        return ", ".join(parts)


def note_paid(
    notes: dict[str, Any], pipeline: PipelineContext, teacher: Teacher, store: JournalStore, requests: Sequence[Request]
) -> None:
    """Add what these questions have cost, in this run or an earlier one, to the notes of a run."""
    if pipeline.prices is None:
        return
    keys = sorted({request_key(teacher, request, pipeline.namespace) for request in requests})
    paid = notes.setdefault("paid", {"currency": pipeline.prices.currency, "cost_micros": 0})
    cost = store.paid(keys)
    paid["cost_micros"] += cost
    if pipeline.teachers is not None:
        each = paid.setdefault("teachers", {})
        each[pipeline.teacher.name] = each.get(pipeline.teacher.name, 0) + cost


def per_kept(paid: dict[str, Any] | None, kept: int) -> dict[str, Any] | None:
    """What each kept record came to, all questions behind the data set counted, rounded up; None without prices."""
    if paid is None:
        return None
    cost = int(paid["cost_micros"])
    share = -(-cost // kept) if kept else None
    shown = "no record was kept" if share is None else money(share, paid["currency"])
    return {**paid, "kept": kept, "per_kept_micros": share, "cost per kept record": shown}
