"""The continuous feed against a session that is a model: what is recorded is what was asked, whatever comes back."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.errors import DistillError, TeacherError
from distill_dagster.teachers.base import Request, Response
from distill_dagster.teachers.journal import Journal

FAILED = Response("", "error", "m", 0, 0, failure="server")
REFUSED = Response("", "error", "m", 0, 0, failure="bad_request")


class FakeSession:
    """Gives back some of what it holds at each turn, in a drawn order; `faults` counts how often a question fails."""

    def __init__(self, teacher):
        self.teacher, self.held, self.unsettled, self.retries = teacher, {}, 0, 0
        self.order: list[str] = []
        self.ended = False

    def room(self):
        return self.teacher.rng.randint(0, self.teacher.ceiling) - len(self.held) if self.held else self.teacher.ceiling

    def put(self, questions):
        for ticket, request in questions:
            text = request.messages[0]["content"]
            assert ticket not in self.held
            self.held[ticket] = text
            self.order.append(text)
            self.teacher.asked[text] += 1

    def take(self, timeout):
        if self.teacher.breaks is not None and len(self.order) >= self.teacher.breaks:
            raise TeacherError("teacher fake", "it broke.")
        tickets = sorted(self.held)
        self.teacher.rng.shuffle(tickets)
        results = []
        for ticket in tickets[: self.teacher.rng.randint(1, 3)]:
            text = self.held.pop(ticket)
            if self.teacher.asked[text] <= self.teacher.faults.get(text, 0):
                results.append((ticket, FAILED))
            elif text in self.teacher.refused:
                results.append((ticket, REFUSED))
            else:
                results.append((ticket, Response(f"answer to {text}", "stop", "m", 1, 1)))
        self.unsettled += len(results)
        return results

    def settled(self, count):
        self.unsettled -= count
        assert self.unsettled >= 0

    def retry_after(self, response, tries):
        return 0.0 if response.failure == "server" and tries < 3 else None

    def retry_allowed(self):
        self.retries += 1
        return self.retries <= self.teacher.budget

    def withdraw(self, grace=0.0):
        self.ended = True
        never = sorted(self.held)[: len(self.held) // 2]
        for ticket in never:
            self.teacher.asked[self.held.pop(ticket)] -= 1
        return never


class FakeTeacher:
    identity, revision = "fake", "1"

    def __init__(self, faults=(), refused=(), ceiling=4, budget=100, seed=0, breaks=None):
        self.faults, self.refused, self.ceiling, self.budget = dict(faults), set(refused), ceiling, budget
        self.rng, self.breaks = random.Random(seed), breaks
        self.asked: Counter[str] = Counter()
        self.sessions: list[FakeSession] = []

    def session(self):
        self.sessions.append(FakeSession(self))
        return self.sessions[-1]

    def ask(self, requests):
        raise AssertionError("a teacher with a session is fed")


def questions(texts):
    return [Request(({"role": "user", "content": str(text)},)) for text in texts]


TEXTS = st.lists(st.integers(0, 20).map(str), max_size=25)


@settings(max_examples=20)
@given(
    texts=TEXTS,
    faults=st.dictionaries(st.integers(0, 20).map(str), st.integers(1, 4), max_size=8),
    refused=st.sets(st.integers(0, 20).map(str), max_size=3),
    ceiling=st.integers(1, 8),
    budget=st.integers(0, 12),
    seed=st.integers(0, 99),
)
def test_what_is_recorded_is_what_was_asked(tmp_path_factory, texts, faults, refused, ceiling, budget, seed):
    path = tmp_path_factory.mktemp("feed") / "j.sqlite"
    teacher = FakeTeacher(faults, refused, ceiling, budget, seed)
    seen = []
    with Journal(path) as journal:
        responses, infos = journal.ask(teacher, questions(texts), "n", lambda done, total: seen.append((done, total)))
        attempts = journal.store.attempts()
        assert len(attempts) == teacher.asked.total() and journal.possibly_paid() == []
        assert len(attempts) <= len(set(texts)) + budget and max(teacher.asked.values(), default=0) <= 3
        for text, response in zip(texts, responses, strict=True):
            if response.failure is None:
                assert response.text == f"answer to {text}" and teacher.asked[text] == faults.get(text, 0) + 1
            elif response.failure == "bad_request":
                assert text in refused
            else:
                assert teacher.asked[text] <= faults[text] and (budget < sum(faults.values()) or faults[text] >= 3)
        outcomes = Counter(attempt.outcome for attempt in attempts)
        answered = {text for text, response in zip(texts, responses, strict=True) if response.failure is None}
        assert outcomes["answered"] == len(answered) and set(outcomes) <= {"answered", "failed"}
        assert sum(not info.reused for info in infos) == len(set(texts))
        for session in teacher.sessions:
            assert session.ended and session.unsettled == 0
            first = [text for at, text in enumerate(session.order) if text not in session.order[:at]]
            assert session.order[: len(first)] == first  # what failed comes after everything else
        if texts:
            assert seen == sorted(seen) and seen[-1] == (len(texts), len(texts))
        # The next run asks what failed, and nothing else.
        again = FakeTeacher(seed=seed)
        journal.ask(again, questions(texts), "n")
        assert set(again.asked) == set(texts) - answered


@settings(max_examples=10)
@given(seed=st.integers(0, 99), breaks=st.integers(1, 40), ceiling=st.integers(1, 8))
def test_a_session_that_breaks_leaves_an_honest_record(tmp_path_factory, seed, breaks, ceiling):
    path = tmp_path_factory.mktemp("feed") / "j.sqlite"
    teacher = FakeTeacher(ceiling=ceiling, seed=seed, breaks=breaks)
    texts = [str(at) for at in range(50)]
    with Journal(path) as journal:
        with pytest.raises(TeacherError, match="it broke"):
            journal.ask(teacher, questions(texts), "n")
        attempts = journal.store.attempts()
        not_sent = [attempt for attempt in attempts if attempt.failure == "not_sent"]
        assert len(attempts) - len(not_sent) == teacher.asked.total()
        unknown = [attempt for attempt in attempts if attempt.outcome == "unknown"]
        assert len(unknown) == len(journal.possibly_paid()) <= ceiling
        answered = sum(attempt.outcome == "answered" for attempt in attempts)
        again = FakeTeacher(seed=seed)
        journal.ask(again, questions(texts), "n")
        assert again.asked.total() == 50 - answered


def test_what_came_is_recorded_though_its_commit_was_broken_off(tmp_path, monkeypatch):
    with Journal(tmp_path / "j.sqlite") as journal:
        whole, calls = journal.store.settled, []

        def broken(results):
            calls.append(len(results))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return whole(results)

        monkeypatch.setattr(journal.store, "settled", broken)
        teacher = FakeTeacher(ceiling=4)
        with pytest.raises(KeyboardInterrupt):
            journal.ask(teacher, questions(range(20)), "n")
        # Every outcome that the session gave is on disk, those of the third commit among them.
        known = sum(attempt.outcome == "answered" for attempt in journal.store.attempts())
        assert known == sum(calls[:2]) + calls[3] and calls[3] >= calls[2]


@pytest.mark.parametrize("price", [0, 7])
def test_another_process_answers_before_the_retry(tmp_path, price):
    """A failed attempt was paid for here: its money stays with the call, though the answer is another's."""
    path = tmp_path / "j.sqlite"
    (asked,) = questions("a")

    class Raced(FakeSession):
        def settled(self, count):
            with Journal(path) as other:
                other.ask(FakeTeacher(), [asked], "n")

    teacher = FakeTeacher(faults={"a": 9})
    teacher.session = lambda: Raced(teacher)
    teacher.cost_micros = lambda response: price
    with Journal(path) as journal:
        (response,), (info,) = journal.ask(teacher, [asked], "n")
        assert response.text == "answer to a" and teacher.asked == {"a": 1}
        assert info.cost_micros == journal.spent() == price and info.reused == (price == 0)
        (_,), (again,) = journal.ask(teacher, [asked], "n")
    assert again.reused and again.cost_micros == 0


def test_a_session_that_gives_a_ticket_back_twice_is_named(tmp_path):
    class Twice(FakeSession):
        def take(self, timeout):
            return super().take(timeout) * 2

    teacher = FakeTeacher()
    teacher.session = lambda: Twice(teacher)
    with Journal(tmp_path / "j.sqlite") as journal, pytest.raises(DistillError, match="it answered attempt"):
        journal.ask(teacher, questions("abc"), "n")
