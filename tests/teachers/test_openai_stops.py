"""A teacher behind HTTP: what stops a run or slows it down, what is kept then, and where the key is not.

The server keeps its own bill and imports nothing of the package.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import Counter

import pytest
from fault_server import FaultServer
from openai_asking import CANARY, outcomes, question, questions, teacher

from distill_dagster.config.endpoint import EndpointOptions
from distill_dagster.errors import ConfigError, StoreError, TeacherError
from distill_dagster.teachers import _limits, addresses, openai
from distill_dagster.teachers._journal_sqlite import SqliteStore
from distill_dagster.teachers.journal import Journal


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal.sqlite") as opened:
        yield opened


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (401, "bad key {authorization}", "does not accept the key in TEACHER_KEY"),
        (403, "no", "does not accept"),
        (402, "pay", "answers no more"),
        (429, '{"error": {"code": "insufficient_quota"}}', "answers no more"),
        (404, "no such model", "no model 'test-model'"),
        (302, "", "redirect"),
    ],
)
def test_what_every_question_would_meet_stops_the_run(journal, monkeypatch, status, text, said):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    with FaultServer(status=(status, text)) as server:
        with pytest.raises(TeacherError, match=said) as caught:
            journal.ask(teacher(server, api_key_env="TEACHER_KEY", max_in_flight=4), questions(200), "n")
        assert server.requests <= 4
    assert CANARY not in str(caught.value)
    # Nothing is left open, and what was never sent says so.
    assert journal.possibly_paid() == [] and set(outcomes(journal)) == {"failed"}
    failures = Counter(attempt.failure for attempt in journal.store.attempts())
    assert sum(count for name, count in failures.items() if name != "not_sent") == server.requests


class Forbids(FaultServer):
    """Forbids some questions, without a word why; not before 20 answers."""

    forbidden = frozenset({"question 50", "question 51"})

    async def _answer(self, request, body, question, fault):
        while question in self.forbidden and len(self.billed) < 20:
            await asyncio.sleep(0.005)
        self.status = (403, "no") if question in self.forbidden else None
        return await super()._answer(request, body, question, fault)


def test_one_forbidden_question_ends_no_run(journal):
    with Forbids() as server:
        responses, _ = journal.ask(teacher(server), questions(60), "n")
        found = {at: response.failure for at, response in enumerate(responses) if response.failure}
        assert found == {50: "bad_request", 51: "bad_request"} and server.requests == 60
        # The next run asks them alone, and has no answer of its own: the key was good for earlier ones.
        responses, _ = journal.ask(teacher(server), questions(60), "n")
        assert server.requests == 62 and [at for at, one in enumerate(responses) if one.failure] == [50, 51]
        # A key that was withdrawn meanwhile is told by this: every question meets a 403.
        server.forbidden = frozenset(f"question {at}" for at in range(1000))
        with pytest.raises(TeacherError, match="does not accept"):
            journal.ask(teacher(server, max_in_flight=4), questions(1000), "n")
        assert server.requests <= 62 + 20 + 4


def test_a_limit_for_a_minute_is_waited_for(journal):
    said = "You exceeded your current quota, please check your plan and billing details. Please retry in 0.3s."

    class Limited(FaultServer):
        async def _answer(self, request, body, question, fault):
            self.status = (429, json.dumps([{"error": {"message": said}}])) if self.requests == 5 else None
            return await super()._answer(request, body, question, fault)

    with Limited() as server:
        start = time.monotonic()
        responses, _ = journal.ask(teacher(server, max_in_flight=2), questions(20), "n")
    assert all(response.failure is None for response in responses) and time.monotonic() - start >= 0.3
    daily = FaultServer(status=(429, '{"error": {"message": "try again in 12h"}}'))
    with daily as server, pytest.raises(TeacherError, match="asks to wait 43200 seconds"):
        journal.ask(teacher(server), questions(40), "n")


def test_a_model_that_thinks_too_long_is_asked_once_and_stops_the_run(journal):
    def thinks(body, sound):
        if answered and not body["messages"][-1]["content"].endswith("7"):
            return sound
        sound["choices"][0] |= {"message": {"content": None, "reasoning_content": "hm"}, "finish_reason": "length"}
        return sound

    answered = True
    with FaultServer(reply=thinks) as server:
        responses, _ = journal.ask(teacher(server), questions(30), "n")
        assert [at for at, one in enumerate(responses) if one.failure == "used_up"] == [7, 17, 27]
        assert server.requests == 30
    answered = False
    with FaultServer(reply=thinks) as server, Journal(journal.store.path.parent / "other.sqlite") as other:
        with pytest.raises(TeacherError, match=r"first 20 requests all failed \(used_up\).*raise `max_new_tokens`"):
            other.ask(teacher(server, max_in_flight=4), questions(200), "n")
        assert server.requests <= 24


@pytest.mark.parametrize("key", ["-", "ollama", "EMPTY", "stop"])
def test_a_placeholder_for_a_key_spoils_no_answer(journal, monkeypatch, key):
    monkeypatch.setenv("TEACHER_KEY", key)
    with FaultServer(model="test-model@ollama") as server:
        asked = [question("stop - EMPTY ollama")]
        (response,), _ = journal.ask(teacher(server, api_key_env="TEACHER_KEY"), asked, "n")
    assert response.text == "answer to stop - EMPTY ollama"


def test_what_was_answered_before_the_stop_is_kept(journal):
    class RunsOut(FaultServer):
        async def _answer(self, request, body, question, fault):
            self.status = (402, "pay") if sum(self.billed.values()) >= 30 else None
            return await super()._answer(request, body, question, fault)

    with RunsOut() as server:
        with pytest.raises(TeacherError, match="answers no more"):
            journal.ask(teacher(server, max_in_flight=4), questions(100), "n")
        assert outcomes(journal)["answered"] == sum(server.billed.values()) == 30
    with FaultServer() as server:
        responses, infos = journal.ask(teacher(server), questions(100), "n")
    assert server.requests == 70 and sum(info.reused for info in infos) == 30
    assert all(response.failure is None for response in responses)


def test_a_server_that_is_not_there_stops_the_run(journal):
    with FaultServer() as server:
        pass
    with pytest.raises(TeacherError, match=r"first 20 requests all failed \(connection\).*ConnectorError"):
        journal.ask(teacher(server), questions(100), "n")
    responses, _ = journal.ask(teacher(server, attempts=2), questions(3), "n")
    assert {response.failure for response in responses} == {"connection"}


def test_a_server_that_falls_silent_is_probed_and_found_again(journal, monkeypatch):
    """The circuit opens after 20 failures in a row, lets single requests through, and closes with the first answer."""
    monkeypatch.setattr(_limits, "BREAKER", 5)
    with FaultServer(script=[""] * 10 + ["503"] * 12) as server:
        backend = teacher(server, max_in_flight=4)
        responses, _ = journal.ask(backend, questions(60), "n")
    assert all(response.failure is None for response in responses)
    assert backend.gate is not None and backend.gate.opened >= 2


def test_a_server_that_stays_silent_stops_the_run(journal):
    silent = FaultServer(script=[""] * 10, faults={"503": 1.0})
    with silent as server, pytest.raises(TeacherError, match="no answer for .* seconds .server.*status 503"):
        journal.ask(teacher(server, patience=0.3, max_in_flight=8), questions(1000), "n")
    assert outcomes(journal)["answered"] == 10 and journal.possibly_paid() == []


def test_one_cut_for_a_burst_of_too_many_requests(journal):
    with FaultServer(latency=0.02, script=["429"] * 16) as server:
        backend = teacher(server, max_in_flight=16)
        server.hold = threading.Event()
        threading.Timer(0.2, server.hold.set).start()
        responses, _ = journal.ask(backend, questions(64), "n")
    assert all(response.failure is None for response in responses)
    assert backend.gate is not None and backend.gate.cuts == 1


def test_a_key_is_named_and_found_nowhere(journal, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    caplog.set_level(logging.DEBUG)

    def echo(body, sound):
        sound["choices"][0]["message"]["content"] = f"your key is {CANARY}"
        return sound

    echoes = '{"error": "{authorization}"}'
    said = []
    for server in (
        FaultServer(reply=echo),
        FaultServer(status=(400, echoes)),
        FaultServer(status=(500, echoes)),
        FaultServer(status=(200, echoes)),
        FaultServer(status=(401, echoes)),
    ):
        with server:
            backend = teacher(server, api_key_env="TEACHER_KEY", attempts=2)
            try:
                responses, _ = journal.ask(backend, questions(2), "n")
                assert all(response.failure for response in responses)
                said += [repr(response) for response in responses]
            except TeacherError as error:
                said += [str(error), repr(error), repr(error.__dict__)]
            said += [repr(backend), repr(vars(backend))]
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(TeacherError, match="TEACHER_KEY is not set"):
        journal.ask(backend, questions(2), "n")
    assert CANARY not in "\n".join(said) + caplog.text
    for path in tmp_path.rglob("*"):  # the write-ahead log included
        assert CANARY.encode() not in path.read_bytes()


def test_another_model_than_before(journal):
    with FaultServer(model="test-model-2026-01-01") as server:
        journal.ask(teacher(server, served_model="pin"), questions(3), "n")
        server.model = "test-model-2026-02-02"
        with pytest.raises(TeacherError, match="'test-model-2026-01-01', and now the server answers as .*02-02"):
            journal.ask(teacher(server, served_model="pin"), questions(40), "n")
        assert outcomes(journal)["answered"] == 3
        responses, _ = journal.ask(teacher(server, served_model="warn"), questions(10), "n")
    assert journal.served("teacher") == {"test-model-2026-01-01": 3, "test-model-2026-02-02": 7}
    assert all(response.failure is None for response in responses)


def test_two_runs_never_pay_for_one_question(tmp_path):
    """What one run has on the wire, the other waits for; each asks the rest."""
    path = tmp_path / "journal.sqlite"
    results = {}

    def first():
        with Journal(path) as one:
            results["first"] = one.ask(teacher(server), questions(4), "n")

    with FaultServer() as server:
        server.hold = threading.Event()
        thread = threading.Thread(target=first)
        thread.start()
        while server.requests < 4:
            thread.join(0.01)
        with Journal(path, patience=30) as two:
            # The first run's answers come once the second one has begun to wait, having asked only what is its own.
            timer = threading.Timer(0.3, server.hold.set)
            timer.start()
            responses, infos = two.ask(teacher(server), questions(6), "n")
        thread.join()
        timer.join()
    assert server.requests == 6 and max(server.billed.values()) == 1
    assert [response.text for response in responses] == [f"answer to question {at}" for at in range(6)]
    assert [info.reused for info in infos] == [True] * 4 + [False] * 2
    assert not any(info.reused for info in results["first"][1])


def test_a_journal_that_cannot_be_written_stops_the_asking(tmp_path):
    store = SqliteStore(tmp_path / "journal.sqlite")
    with FaultServer(latency=0.005) as server:
        with Journal(tmp_path / "journal.sqlite", store) as journal:
            pages = store._db.execute("PRAGMA page_count").fetchone()[0]
            store._db.execute(f"PRAGMA max_page_count = {pages + 30}")
            with pytest.raises(StoreError, match="full"):
                journal.ask(teacher(server, max_in_flight=4), questions(5000), "n")
            kept = outcomes(journal)["answered"]
            paid = sum(server.billed.values())
            assert 0 < kept <= paid <= kept + 4
            store._db.execute("PRAGMA max_page_count = 100000")
        before = server.requests
        with Journal(tmp_path / "journal.sqlite") as journal:
            journal.ask(teacher(server), questions(200), "n")
        assert server.requests - before == max(0, 200 - kept)


def test_rates_are_kept_while_asking(journal):
    with FaultServer() as server:
        backend = teacher(server, requests_per_minute=3000, tokens_per_minute=10**6)
        start = time.monotonic()
        journal.ask(backend, questions(120), "n")
        # A burst of 50, then one each 20 ms.
        assert time.monotonic() - start >= 70 * 60 / 3000 * 0.9
    assert backend.gate is not None and backend.gate.requests is not None


def test_an_interrupted_run_leaves_nothing_open(journal):
    """Ctrl-C: what is on the wire comes back, connections close, and claims go back."""

    def interrupt(done, total):
        if done >= 20 and server.in_flight:
            raise KeyboardInterrupt

    with FaultServer(latency=0.01) as server:
        with pytest.raises(KeyboardInterrupt):
            journal.ask(teacher(server, max_in_flight=8), questions(500), "n", interrupt)
        found = outcomes(journal)
        # What was on the wire has come back: it was paid for.
        assert found["answered"] >= 20 and set(found) <= {"answered", "failed"}
        assert sum(server.billed.values()) == found["answered"]
        assert not [thread for thread in threading.enumerate() if thread.name == "teacher"]
        before = server.requests
        journal.ask(teacher(server), questions(500), "n")
        assert server.requests - before == 500 - found["answered"]


@pytest.mark.parametrize(
    ("resolved", "egress_class", "words"),
    [
        (["169.254.169.254"], "own_network", "metadata service"),
        (["10.1.2.3"], "third_party", "private network"),
        (["93.184.215.14", "::ffff:127.0.0.1"], "third_party", "this machine"),
    ],
)
def test_an_address_that_may_not_be_connected_to_is_never_asked(monkeypatch, tmp_path, resolved, egress_class, words):
    monkeypatch.setattr(addresses, "resolve", lambda host, port: resolved)
    endpoint = EndpointOptions(url="http://teacher.example.org/v1")
    model = openai.Backend("m", endpoint=endpoint, identity="t", egress_class=egress_class)
    with Journal(tmp_path / "journal.sqlite") as journal:
        with pytest.raises(ConfigError, match=words):
            journal.ask(model, [*questions(1)], "n")
        assert journal.store.attempts() == []


def test_a_name_that_is_allowed_leads_to_the_judged_address(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(addresses, "resolve", lambda host, port: asked.append(host) or ["127.0.0.1"])
    with FaultServer() as server:
        endpoint = EndpointOptions(
            url=f"http://teacher.example.org:{server.port}/v1", allow_hosts=["teacher.example.org"]
        )
        model = openai.Backend("test-model", endpoint=endpoint, identity="t")
        with Journal(tmp_path / "journal.sqlite") as journal:
            (answer,), _ = journal.ask(model, [*questions(1)], "n")
        assert answer.failure is None and server.requests == 1 and asked == ["teacher.example.org"]
