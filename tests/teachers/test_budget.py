"""A budget is never passed, stops resumably, and nothing is paid for twice when it is raised."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.config.models import BudgetOptions, PriceEntry
from distill_dagster.errors import BudgetError
from distill_dagster.teachers._journal import Asked
from distill_dagster.teachers.base import Request, Response, request_key
from distill_dagster.teachers.budget import Budgeted, worst_tokens
from distill_dagster.teachers.journal import Journal
from distill_dagster.teachers.prices import Priced, Tariff

PRICE = PriceEntry(model="m", valid_from="2026-01-01", input_per_million=2.0, output_per_million=10.0)


class Metered:
    """A teacher that keeps its own bill; an answer is as long as the question says, within its limit."""

    identity, revision = "metered", "1"

    def __init__(self, window=8, broken=()):
        self.window, self.broken, self.bill = window, set(broken), []

    def ask(self, requests):
        for index, request in enumerate(requests):
            text = request.messages[0]["content"]
            read, written = len(text) // 3 + 5, int(text.split()[1])
            self.bill.append((text, 2 * read + 10 * written, read + written))
            if text in self.broken:
                yield index, Response("", "error", "m", read, 0, failure="timeout")
            else:
                yield index, Response(f"answer to {text}", "stop", "m", read, written)

    @property
    def cost(self):
        return sum(cost for _, cost, _ in self.bill)


def questions(lengths, limit=50):
    return [
        Request(({"role": "user", "content": f"q{at} {n}"},), {"max_new_tokens": limit}) for at, n in enumerate(lengths)
    ]


def ask(path, teacher, requests, budget, priced=True, lost=0):
    inner = Priced(teacher, Tariff("USD", PRICE)) if priced else teacher
    wrapped = Budgeted(inner, BudgetOptions(**budget))
    with Journal(path) as journal:
        wrapped.begin(journal.store, requests, "n")
        try:
            return journal.ask(wrapped, requests, "n")
        finally:
            assert len(journal.possibly_paid()) == lost


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    window=st.integers(1, 12),
    limits=st.lists(st.integers(1, 25_000), min_size=1, max_size=4),
)
def test_a_limit_is_never_passed_and_nothing_paid_twice(tmp_path_factory, lengths, window, limits):
    path, teacher, requests = tmp_path_factory.mktemp("b") / "j.sqlite", Metered(window), questions(lengths)
    for limit in sorted(limits):
        try:
            ask(path, teacher, requests, {"money": limit / 1e6})
            assert len(teacher.bill) == len(requests)
        except BudgetError:
            largest = max(2 * worst_tokens(r)[0] + 10 * worst_tokens(r)[1] for r in requests)
            assert len(teacher.bill) < len(requests) and teacher.cost + largest > limit
        assert teacher.cost <= limit
    responses, infos = ask(path, teacher, requests, {"money": 100.0})
    assert [r.text for r in responses] == [f"answer to {r.messages[0]['content']}" for r in requests]
    assert max(Counter(text for text, _, _ in teacher.bill).values()) == 1


def test_the_error_says_spent_limit_and_what_is_left(tmp_path):
    requests = questions([10] * 20)
    with pytest.raises(BudgetError) as caught:
        ask(tmp_path / "j", Metered(), requests, {"money": 0.002})
    # An answer costs 2 * 6 or 7 + 10 * 10 micros; a question may cost 2 * (5 + 32) + 500 at worst.
    said = str(caught.value)
    assert said.startswith("teacher metered: the next question might pass its budget: 0.00")
    assert "of 0.002 USD are spent. " in said and "questions are left to ask, for at most 0.00" in said
    assert "Raise its `budget` and run again" in said


@pytest.mark.parametrize(("budget", "count"), [({"calls": 7}, 7), ({"tokens": 200}, 7)])
def test_calls_and_tokens_without_prices(tmp_path, budget, count):
    """A question holds 6 or 7 tokens and is answered by 10; at worst it is some 37 and 50."""
    teacher = Metered(window=3)
    with pytest.raises(BudgetError, match=f"of {next(iter(budget.values()))} (calls|tokens) are"):
        ask(tmp_path / "j", teacher, questions([10] * 12), budget, priced=False)
    assert len(teacher.bill) == count or "tokens" in budget
    assert sum(tokens for _, _, tokens in teacher.bill) <= 200 or "calls" in budget
    spent = len(teacher.bill)
    with pytest.raises(BudgetError):
        ask(tmp_path / "j", teacher, questions([10] * 12), budget, priced=False)
    assert len(teacher.bill) == spent
    ask(tmp_path / "j", teacher, questions([10] * 12), {"calls": 12}, priced=False)
    assert len(teacher.bill) == 12


def test_failed_calls_are_paid_for(tmp_path):
    requests = questions([10] * 3)
    teacher = Metered(broken=[requests[1].messages[0]["content"]])
    responses, infos = ask(tmp_path / "j", teacher, requests, {"calls": 3})
    assert [r.failure for r in responses] == [None, "timeout", None] and infos[1].cost_micros > 0
    with pytest.raises(BudgetError, match="3 of 3 calls are made. 1 question is left"):
        ask(tmp_path / "j", Metered(), requests, {"calls": 3})
    assert ask(tmp_path / "j", Metered(), requests, {"calls": 4})[0][1].failure is None


def test_what_is_not_affordable_is_not_recorded_as_sent(tmp_path):
    with pytest.raises(BudgetError):
        ask(tmp_path / "j", Metered(window=10), questions([10] * 10), {"calls": 4})
    with Journal(tmp_path / "j") as journal:
        found = Counter((one.outcome, one.failure) for one in journal.store.attempts())
        assert found == {("answered", None): 4, ("failed", "not_sent"): 6}
        assert journal.store.account("metered", "n").calls == 4
        assert journal.store.account("metered", "other") == journal.store.account("other", "n") == (0, 0, 0)


def test_another_process_spending_counts(tmp_path):
    """What somebody else pays meanwhile is seen when the next questions are sent."""
    path, requests = tmp_path / "j", questions([10] * 2000)

    class Neighbour(Metered):
        """Answers, while another pipeline of the same teacher spends."""

        def ask(self, requests):
            if len(self.bill) == 600:
                with Journal(path) as other:
                    other.ask(Metered(), questions([3] * 500, limit=4), "n")
            yield from super().ask(requests)

    teacher = Neighbour(window=100)
    with pytest.raises(BudgetError):
        ask(path, teacher, requests, {"calls": 1500}, priced=False)
    assert len(teacher.bill) == 1000


def forsaken(path, requests, teacher):
    """A holder that is gone without a trace, after it had sent questions."""
    journal = Journal(path)
    keys = [request_key(teacher, request, "n") for request in requests]
    journal.store.claim(keys)
    journal.store.sent([Asked(key, "n", teacher.identity, teacher.revision) for key in keys])
    journal.store._stop.set()
    journal.store._db.execute("UPDATE holder SET pid = ?", (2**22 + 7,))
    journal.store._db.close()


def test_attempts_of_unknown_outcome_count_at_their_worst(tmp_path):
    """4 questions were sent by a process that was killed: they may be paid for, and are asked again."""
    path, requests, teacher = tmp_path / "j", questions([10] * 12), Metered()
    forsaken(path, requests[:4], teacher)
    said = (
        "10 of 10 calls are made .of them 4 of unknown outcome, at the worst they can have cost.. 6 questions are left"
    )
    with pytest.raises(BudgetError, match=said):
        ask(path, teacher, requests, {"calls": 10}, lost=4)
    assert len(teacher.bill) == 6
    worst = sum(2 * read + 10 * written for read, written in map(worst_tokens, requests[:4]))
    with pytest.raises(BudgetError, match="4 of unknown outcome"):
        ask(path, teacher, requests, {"money": (worst + teacher.cost) / 1e6}, lost=4)
    assert len(teacher.bill) == 6  # what may have been spent leaves no room for another question
    ask(path, teacher, requests, {"calls": 16}, lost=4)
    assert len(teacher.bill) == 12


def test_of_other_questions_the_largest_counts_and_of_other_teachers_none(tmp_path):
    path, requests, teacher = tmp_path / "j", questions([10] * 6), Metered()
    stranger = Metered()
    stranger.identity = "stranger"
    forsaken(path, questions([9] * 3, limit=20), teacher)
    forsaken(path, questions([9] * 3, limit=20), stranger)
    with pytest.raises(BudgetError, match="3 of unknown outcome"):
        ask(path, teacher, requests, {"calls": 5}, lost=6)
    assert len(teacher.bill) == 2
    teacher.resumes = True  # such a teacher finds what was sent
    with pytest.raises(BudgetError, match="5 of 5 calls are made. 1 question is left"):
        ask(path, teacher, requests, {"calls": 5}, lost=6)


class Feeding:
    """A session over a `Metered`: takes what it is put, and answers one question a `take`."""

    def __init__(self, teacher, width):
        self.teacher, self.width, self.waiting, self.most = teacher, width, deque(), 0

    def room(self):
        return self.width - len(self.waiting)

    def put(self, questions):
        self.waiting.extend(questions)
        self.most = max(self.most, len(self.waiting))

    def take(self, timeout):
        if not self.waiting:
            return []
        ticket, request = self.waiting.popleft()
        return [(ticket, response) for _, response in self.teacher.ask([request])]

    def settled(self, count):
        pass

    def withdraw(self, grace=0.0):
        return [ticket for ticket, _ in self.waiting]


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    width=st.integers(1, 8),
    limit=st.integers(1, 20_000),
)
def test_a_continuous_feed_keeps_within_the_budget(tmp_path_factory, lengths, width, limit):
    """The teacher's own session is asked only for as many as the budget has room for, and ends when it has none."""
    teacher, requests = Metered(), questions(lengths)
    teacher.session = lambda: Feeding(teacher, width)
    wrapped = Budgeted(Priced(teacher, Tariff("USD", PRICE)), BudgetOptions(money=limit / 1e6))
    with Journal(tmp_path_factory.mktemp("f") / "j") as journal:
        wrapped.begin(journal.store, requests, "n")
        session, fresh, answers = wrapped.session(), deque(enumerate(requests)), {}
        session.settled(0)
        try:
            while len(answers) < len(requests):
                put = [fresh.popleft() for _ in range(min(session.room(), len(fresh)))]
                if put:
                    session.put(put)
                answers.update(session.take(None))
                assert teacher.cost <= limit
        except BudgetError:
            largest = max(2 * worst_tokens(r)[0] + 10 * worst_tokens(r)[1] for r in requests)
            assert teacher.cost + largest > limit and len(answers) == len(teacher.bill)
        assert session.withdraw() == []
    assert teacher.cost <= limit


def test_a_teacher_without_a_feed_gets_none():
    assert not hasattr(Budgeted(Metered(), BudgetOptions(calls=1)), "session")
    assert not hasattr(Budgeted(Metered(), BudgetOptions(calls=1)), "cost_micros")


@given(st.text(max_size=40))
def test_no_tokenizer_reads_more_tokens_than_the_bound(text):
    """A byte-level tokenizer reads one token a byte at most."""
    request = Request(({"role": "user", "content": text},), {"max_new_tokens": 3})
    read, written = worst_tokens(request)
    assert read >= len(text.encode("utf-8", "replace")) and written == 3
