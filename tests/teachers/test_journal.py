"""No answer is paid for twice, nothing is lost, and what may have been paid in vain is said."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_dagster.errors import DistillError, LeaseError, StoreError
from distill_dagster.teachers import _holder, _journal_sqlite
from distill_dagster.teachers.base import Request, Response, TokenLogprob, request_key
from distill_dagster.teachers.journal import Journal


class FakeTeacher:
    """Answers in reverse order; `faults` maps a question to what comes in place of its answer."""

    identity, revision = "fake", "1"

    def __init__(self, window=8, faults=None, **more):
        self.window, self.faults, self.asked = window, faults or {}, []
        for name, value in more.items():
            setattr(self, name, value)

    def ask(self, requests):
        self.asked += [request.messages[0]["content"] for request in requests]
        for index in reversed(range(len(requests))):
            text = requests[index].messages[0]["content"]
            fault = self.faults.get(text)
            if isinstance(fault, Exception):
                raise fault
            if fault != "silent":
                yield index, fault or Response(f"answer to {text}", "stop", "fake-1", 3, 4)


def question(text, **more):
    return Request(({"role": "user", "content": str(text)},), {"temperature": 0.0}, **more)


def questions(texts):
    return [question(text) for text in texts]


@pytest.fixture
def journal(place):
    with place.open(patience=0.5) as opened:
        yield opened


def test_log_probabilities_stay_with_their_answer(place):
    entries = (TokenLogprob("a", -0.25, (("a", -0.25), ("\u7b54\x00", -1.5))), TokenLogprob("", 0.0, ()))

    class Telling(FakeTeacher):
        def ask(self, requests):
            for index, response in super().ask(requests):
                yield index, replace(response, logprobs=entries if index == 0 else None)

    with place.open() as journal:
        journal.ask(Telling(), questions("ab"), "n")
    with place.open() as journal:
        (first, second), infos = journal.ask(Telling(), questions("ab"), "n")
    assert all(info.reused for info in infos)
    assert first.logprobs == entries and second.logprobs is None


def test_answers_come_in_order_and_only_once_paid(journal):
    teacher = FakeTeacher(cost_micros=lambda response: 10 * response.output_tokens)
    texts = list("abcdefghijklmnopqrst")
    seen = []
    responses, infos = journal.ask(teacher, questions(texts), "n", lambda done, total: seen.append((done, total)))
    assert [response.text for response in responses] == [f"answer to {text}" for text in texts]
    assert not any(info.reused for info in infos) and {info.cost_micros for info in infos} == {40}
    assert journal.spent() == sum(info.cost_micros for info in infos) == 800
    assert seen == sorted(seen) and seen[-1] == (20, 20)
    assert all(info.sent_at <= info.received_at for info in infos)
    again, infos = journal.ask(teacher, questions(texts), "n")
    assert again == responses and len(teacher.asked) == 20
    assert all(info.reused and info.cost_micros == 0 for info in infos)
    assert journal.spent() == 800 and journal.served("fake") == {"fake-1": 20} and journal.possibly_paid() == []


def test_reuse_counts(journal):
    """The cache cases: same again, one added, one edited, and what makes another question."""
    texts = [f"q{at}" for at in range(30)]

    def asked(requests, namespace="n", **more):
        teacher = FakeTeacher()
        for name, value in more.items():
            setattr(teacher, name, value)
        responses, infos = journal.ask(teacher, requests, namespace)
        assert sum(not info.reused for info in infos) == len(teacher.asked)
        for request, response in zip(requests, responses, strict=True):
            assert response.text == f"answer to {request.messages[0]['content']}"
        return len(teacher.asked)

    base = questions(texts)
    assert asked(base) == 30
    assert asked(base) == 0
    assert asked([*base, question("new")]) == 1
    assert asked([base[0], question("edited"), *base[2:]]) == 1
    assert asked(base[::-1]) == 0
    assert asked(base, revision="2") == 30
    assert asked(base, identity="other") == 30
    assert asked(base, namespace="m") == 30
    system = {"role": "system", "content": "s"}
    assert asked([Request((*r.messages, system), r.sampling) for r in base]) == 30
    assert asked([Request(r.messages, {"temperature": 0.5}) for r in base]) == 30
    assert asked([question(text, sample=1) for text in texts]) == 30


def test_identical_questions_are_asked_once(journal):
    teacher = FakeTeacher(cost_micros=lambda _: 5)
    responses, infos = journal.ask(teacher, questions("abacaab"), "n")
    assert sorted(teacher.asked) == ["a", "b", "c"]
    assert [response.text[-1] for response in responses] == list("abacaab")
    assert [info.reused for info in infos] == [False, False, True, False, True, True, True]
    assert sum(info.cost_micros for info in infos) == journal.spent() == 15


def test_failures_are_not_answers(journal):
    timeout = Response("", "error", "fake-1", 3, 0, failure="timeout")
    teacher = FakeTeacher(faults={"b": timeout, "c": "silent"})
    responses, infos = journal.ask(teacher, questions("abc"), "n")
    assert [response.failure for response in responses] == [None, "timeout", "no_answer"]
    assert not any(info.reused for info in infos)
    teacher = FakeTeacher()
    responses, infos = journal.ask(teacher, questions("abc"), "n")
    assert sorted(teacher.asked) == ["b", "c"] and [info.reused for info in infos] == [True, False, False]
    assert [response.failure for response in responses] == [None] * 3
    outcomes = Counter(attempt.outcome for attempt in journal.store.attempts())
    assert outcomes == {"answered": 3, "failed": 2}


@pytest.mark.parametrize(
    "response",
    [
        Response("a lone \ud800 surrogate", "stop", "m", 1, 1),
        Response(None, "stop", "m", 1, 1),  # type: ignore[arg-type]
        Response("x", "eos", "m", 1, 1),
        Response("x", "error", "m", 1, 1),
        Response("x", "stop", "m", -1, 1),
        Response("x", "stop", None, 1, 1),  # type: ignore[arg-type]
        Response("x", "stop", "m", 1, 1.5),  # type: ignore[arg-type]
        {"text": "x"},
    ],
)
def test_malformed_responses_are_put_aside(journal, place, response):
    responses, _ = journal.ask(FakeTeacher(faults={"b": response}), questions("ab"), "n")
    assert [entry.failure for entry in responses] == [None, "malformed"] and responses[1].text == ""
    kept = place.rows("SELECT detail, raw FROM quarantine")
    assert len(kept) == 1 and kept[0][0] and b"'" in kept[0][1]
    assert journal.ask(FakeTeacher(), questions("ab"), "n")[0][1].text == "answer to b"


def test_a_teacher_that_breaks_off_loses_nothing_it_was_paid_for(journal):
    paid = FakeTeacher(faults={"c": ConnectionError("gone")}, cost_micros=lambda _: 7)
    with pytest.raises(ConnectionError):
        journal.ask(paid, questions("abcde"), "n")
    assert journal.spent() == 14
    assert sorted(attempt.outcome for attempt in journal.store.attempts()) == ["answered"] * 2 + ["unknown"] * 3
    assert len(journal.possibly_paid("n")) == 3 and journal.possibly_paid("m") == []
    teacher = FakeTeacher()
    journal.ask(teacher, questions("abcde"), "n")
    assert sorted(teacher.asked) == ["a", "b", "c"]


def test_a_local_teachers_window_is_kept_whole_or_not_at_all(journal):
    with pytest.raises(ConnectionError):
        journal.ask(FakeTeacher(window=4, faults={"f": ConnectionError()}), questions("abcdefghi"), "n")
    teacher = FakeTeacher(window=4)
    journal.ask(teacher, questions("abcdefghi"), "n")
    assert teacher.asked == list("efghi")


def test_a_backend_that_answers_twice_is_named(journal):
    class Twice(FakeTeacher):
        def ask(self, requests):
            yield from [(0, Response("x", "stop", "m", 1, 1))] * 2

    with pytest.raises(DistillError, match="teacher fake: it answered question 0"):
        journal.ask(Twice(), questions("ab"), "n")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(st.lists(st.integers(0, 12), max_size=15), min_size=1, max_size=5),
    broken=st.sets(st.integers(0, 12), max_size=3),
    window=st.integers(1, 6),
)
def test_each_question_is_asked_until_it_is_answered_and_no_longer(new_place, runs, broken, window):
    """A model of the journal: a set of answered questions; a broken one fails in the first run only."""
    place = new_place()
    answered: set[int] = set()
    for number, run in enumerate(runs):
        fault = Response("", "error", "m", 0, 0, failure="rate_limit")
        faults = {str(text): fault for text in broken} if number == 0 else {}
        teacher = FakeTeacher(window=window, faults=faults)
        with place.open() as journal:
            responses, infos = journal.ask(teacher, questions(run), "n")
        wanted = set(run) - answered
        assert sorted(teacher.asked) == sorted(str(text) for text in wanted)
        assert sum(not info.reused for info in infos) == len(wanted)
        for text, response in zip(run, responses, strict=True):
            failed = str(text) in faults and text not in answered
            assert response.failure == ("rate_limit" if failed else None)
            assert failed or response.text == f"answer to {text}"
        answered |= {text for text in wanted if str(text) not in faults}


def test_two_holders_never_ask_one_question_at_once(place):
    inside, go = threading.Event(), threading.Event()

    class Slow(FakeTeacher):
        def ask(self, requests):
            inside.set()
            assert go.wait(20)
            yield from super().ask(requests)

    slow, quick = Slow(window=2), FakeTeacher(window=2)
    results = {}

    def first():
        with place.open() as journal:
            results["slow"] = journal.ask(slow, questions("ab"), "n")[1]

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(20)
    with place.open(patience=0.1) as other:
        with pytest.raises(LeaseError, match="being asked by process"):
            other.ask(quick, questions("abc"), "n")
        assert quick.asked == ["c"]
        other.patience = 30
        timer = threading.Timer(0.3, go.set)
        timer.start()
        responses, infos = other.ask(quick, questions("abc"), "n")
    thread.join()
    timer.join()
    assert [info.reused for info in infos] == [True] * 3 and [response.text[-1] for response in responses] == list(
        "abc"
    )
    assert quick.asked == ["c"] and sorted(slow.asked) == ["a", "b"]
    assert not any(info.reused for info in results["slow"])


def forsake(path, *, place=None, pid=None):
    """A journal that has claimed and sent `a`, as its holder left it."""
    store = _journal_sqlite.SqliteStore(path)
    key = request_key(FakeTeacher(), question("a"), "n")
    assert store.claim([key]).mine == {key}
    store.sent([_journal_sqlite.Asked(key, "n", "fake", "1")])
    store._stop.set()
    store._db.execute("UPDATE holder SET place = ifnull(?, place), pid = ifnull(?, pid)", (place, pid))
    store._db.close()


def test_a_dead_holders_claims_pass_on_at_once(tmp_path):
    path = tmp_path / "j.sqlite"
    forsake(path, pid=2**22 + 7)
    teacher = FakeTeacher()
    with Journal(path) as journal:
        assert [attempt.outcome for attempt in journal.possibly_paid()] == ["unknown"]
        journal.ask(teacher, questions("a"), "n")
        assert teacher.asked == ["a"] and len(journal.possibly_paid()) == 1


def test_a_process_number_in_new_hands_is_not_the_holder(tmp_path, monkeypatch):
    path = tmp_path / "j.sqlite"
    monkeypatch.setattr(_holder, "started", lambda pid: "before")
    forsake(path)
    monkeypatch.setattr(_holder, "started", lambda pid: "after")
    with Journal(path) as journal:
        assert journal.ask(FakeTeacher(), questions("a"), "n")[0][0].text == "answer to a"


def test_a_holder_elsewhere_is_dead_when_its_beats_stop(tmp_path, monkeypatch):
    path = tmp_path / "j.sqlite"
    monkeypatch.setattr(_holder, "SILENCE", 0.6)
    forsake(path, place="another machine")
    with Journal(path, patience=0.1) as journal:
        with pytest.raises(LeaseError):
            journal.ask(FakeTeacher(), questions("a"), "n")
        journal.patience = 20
        assert journal.ask(FakeTeacher(), questions("a"), "n")[0][0].text == "answer to a"
        assert len(journal.possibly_paid()) == 1


def test_an_answer_that_is_there_first_stands(place):
    """A holder that was taken for dead comes back with an answer of its own."""
    key = request_key(FakeTeacher(), question("a"), "n")
    with place.open() as one, place.open() as two:
        results = []
        for journal, text in ((one, "first"), (two, "second")):
            attempt = journal.store.sent([_journal_sqlite.Asked(key, "n", "fake", "1")])[0]
            answer = Response(text, "stop", "m", 1, 1)
            outcome = _journal_sqlite.Settled(attempt, key, "answered", answer, "2030-01-01T00:00:00Z", 3)
            results += journal.store.settled([outcome])
        assert [entry.response.text for entry in results] == ["first", "first"]
        assert one.spent() == two.spent() == 3


def test_files_that_are_no_journal_are_refused(tmp_path):
    bad = tmp_path / "bad.sqlite"
    bad.write_text("not a database, but long enough to have a header of its own" * 20)
    with pytest.raises(StoreError, match="bad.sqlite"):
        Journal(bad)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        Journal(tmp_path / "file" / "journal.sqlite")
    newer = tmp_path / "newer.sqlite"
    database = sqlite3.connect(newer)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreError, match="format 99"):
        Journal(newer)


def test_many_open_a_new_journal_at_once(tmp_path):
    faults = []
    barrier = threading.Barrier(6)

    def opened(path):
        barrier.wait(20)
        try:
            with Journal(path):
                pass
        except StoreError as error:
            faults.append(error)

    for round_ in range(10):
        threads = [threading.Thread(target=opened, args=(tmp_path / f"{round_}.sqlite",)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not faults


def test_a_full_disk_keeps_what_was_committed(tmp_path):
    path = tmp_path / "j.sqlite"
    long = [str(at) + "x" * 2_000 for at in range(60)]
    store = _journal_sqlite.SqliteStore(path)
    with Journal(path, store) as journal:
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages + 30}")
        with pytest.raises(StoreError, match="full"):
            journal.ask(FakeTeacher(window=8), questions(long), "n")
        kept = [attempt for attempt in journal.store.attempts() if attempt.outcome == "answered"]
        assert 8 <= len(kept) < 60 and len(kept) % 8 == 0
        store._db.execute("PRAGMA max_page_count = 100000")
    teacher = FakeTeacher(window=8)
    with Journal(path) as journal:
        journal.ask(teacher, questions(long), "n")
    assert len(teacher.asked) == 60 - len(kept)


def test_no_question_is_no_work(journal):
    assert journal.ask(FakeTeacher(), [], "n") == ([], [])
