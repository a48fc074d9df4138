"""A budget around the continuous feed of a real HTTP client: the server's own bill never passes the limit."""

from __future__ import annotations

import pytest
from fault_server import FaultServer
from test_openai import questions, teacher

from distill_dagster.config.models import BudgetOptions, PriceEntry
from distill_dagster.errors import BudgetError
from distill_dagster.teachers.budget import Budgeted, worst_tokens
from distill_dagster.teachers.journal import Journal
from distill_dagster.teachers.prices import Priced, Tariff

PRICE = PriceEntry(model="test-model", valid_from="2026-01-01", input_per_million=3.0, output_per_million=7.0)


def ask(path, server, requests, **budget):
    """Answers, or the error; the journal's account of everything asked so far."""
    wrapped = Budgeted(Priced(teacher(server), Tariff("USD", PRICE)), BudgetOptions(**budget))
    error = None
    with Journal(path) as journal:
        wrapped.begin(journal.store, requests, "n")
        try:
            responses, infos = journal.ask(wrapped, requests, "n")
            assert sum(info.cost_micros for info in infos) == journal.spent()
            assert all(response.failure is None for response in responses)
        except BudgetError as caught:
            error = caught
        assert journal.possibly_paid() == []
    with Journal(path) as journal:
        return error, journal.store.account("teacher", "n")


def test_the_server_is_never_asked_beyond_the_budget(tmp_path):
    """Whatever is in flight fits as well, so nothing overshoots; every answer is kept, and none is paid twice."""
    requests = questions(60)
    path = tmp_path / "journal.sqlite"
    largest = max(3 * worst_tokens(one)[0] + 7 * worst_tokens(one)[1] for one in requests)
    with FaultServer() as server:
        error, spent = ask(path, server, requests, money=0.0012)
        assert error is not None and "questions are left to ask" in str(error)
        assert 0 < spent.cost_micros <= 1200 < spent.cost_micros + largest
        assert 0 < spent.calls == server.requests < 60
        again, unchanged = ask(path, server, requests, money=0.0012)
        assert again is not None and unchanged == spent and server.requests == spent.calls
        error, spent = ask(path, server, requests, money=1.0)
        assert error is None and spent.calls == server.requests == 60


def test_calls_are_counted_with_those_that_failed(tmp_path):
    requests = questions(20)
    with FaultServer(faults={"500": 0.3}, seed=3) as server:
        error, spent = ask(tmp_path / "j", server, requests, calls=12)
        assert error is not None and "12 of 12 calls are made" in str(error)
        assert spent.calls == server.requests == 12


@pytest.mark.parametrize("limit", [1, 2])
def test_a_budget_smaller_than_what_is_in_flight(tmp_path, limit):
    with FaultServer() as server:
        error, spent = ask(tmp_path / "j", server, questions(30), calls=limit)
        assert error is not None and spent.calls == server.requests == limit
