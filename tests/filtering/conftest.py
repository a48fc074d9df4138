"""Candidates made by hand."""

from __future__ import annotations

import json

import pytest

from distill_dagster.domains.base import Task, Verdict
from distill_dagster.filtering.base import Context, EvalText
from distill_dagster.records.messages import message
from distill_dagster.records.tables import build

TASKS = {
    "route": Task("route", "label", "Route", "", labels=("card arrival", "card_fee", "other")),
    "sum": Task("sum", "verified", "Sum", ""),
}


def seed_row(number, text, task="route", part="unlabeled", **more):
    """A SEED row."""
    return {
        "seed_no": number,
        "task": task,
        "part": part,
        "messages": [message("user", text)],
        "licence": "CC0-1.0",
        **more,
    }


def candidate_row(number, text, answer="other", task="route", **more):
    """A CANDIDATE row; `text` is what the student reads."""
    row = {
        "candidate_no": number,
        "seed_no": number,
        "call_no": number,
        "kind": "labeling",
        "task": task,
        "sample": 0,
        "messages": [message("user", text), message("assistant", answer if answer is not None else "?")],
        "answer": answer,
        "status": "ok",
        "finish_reason": "stop",
        **more,
    }
    if row["status"] != "ok":
        row |= {"messages": row["messages"][:1], "answer": None}
    return row


def check_sum(task, facts, output):
    """A verifier: `facts` holds the addends."""
    if task != "sum" or "addends" not in facts:
        return Verdict(None, "not mine")
    return Verdict(output.strip() == str(sum(facts["addends"])), f"sum of {facts['addends']}")


@pytest.fixture
def make():
    """`make(rows, seeds, evaluation)`: a candidate table and its context."""

    def _make(rows, seeds=(), evaluation=()):
        table = build("candidate", rows)
        seed_table = build("seed", seeds)
        items = [EvalText(f"e{at}", "route", text, "shop/eval_set") for at, text in enumerate(evaluation)]
        context = Context(TASKS, {row["seed_no"]: row for row in seed_table.to_pylist()}, items, check_sum)
        return table, context

    return _make


@pytest.fixture
def candidate():
    """The maker of CANDIDATE rows."""
    return candidate_row


@pytest.fixture
def seed():
    """The maker of SEED rows."""

    def _seed(number, text, facts=None, **more):
        return seed_row(number, text, facts=None if facts is None else json.dumps(facts), **more)

    return _seed
