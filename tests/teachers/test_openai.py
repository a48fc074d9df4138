"""A teacher behind HTTP: what is asked, what counts as an answer, what is asked again.

The server keeps its own bill and imports nothing of the package.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest
from fault_server import FAULTS, FaultServer
from openai_asking import CANARY, outcomes, question, questions, teacher

from distill_dagster.teachers.base import TokenLogprob
from distill_dagster.teachers.journal import Journal

CLASSES = {
    "429": "rate_limited",
    "429_seconds": "rate_limited",
    "429_date": "rate_limited",
    "500": "server",
    "502": "server",
    "503": "server",
    "529": "rate_limited",
    "stall": "timeout",
    "truncated": "malformed",
    "cut_off": "connection",
    "invalid": "malformed",
    "html": "malformed",
    "empty_choices": "empty",
    "wrong_model": "wrong_model",
    "drip": "timeout",
    "reset": "connection",
    "reset_after": "connection",
    "huge": "oversized",
    "huge_chunked": "oversized",
}


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal.sqlite") as opened:
        yield opened


def test_a_question_and_its_answer(journal, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    with FaultServer(model="test-model-2026-01-01") as server:
        asked = question(
            "why?", {"temperature": 0.7, "top_p": 0.9, "stop": ["\n"], "seed": 5, "max_new_tokens": 9}, "s"
        )
        backend = teacher(server, api_key_env="TEACHER_KEY", extra={"reasoning_effort": "low"})
        (response,), (info,) = journal.ask(backend, [asked], "n")
    assert server.paths == ["/v1/chat/completions"] and server.headers[0]["Authorization"] == f"Bearer {CANARY}"
    assert server.bodies == [
        {
            "reasoning_effort": "low",
            "model": "test-model",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "why?"}],
            "temperature": 0.7,
            "top_p": 0.9,
            "stop": ["\n"],
            "seed": 5,
            "max_tokens": 9,
        }
    ]
    assert (response.text, response.finish_reason, response.failure) == ("answer to why?", "stop", None)
    assert (response.served_model, response.input_tokens, response.output_tokens) == ("test-model-2026-01-01", 1, 3)
    assert not info.reused and journal.served("teacher") == {"test-model-2026-01-01": 1}


def test_plain_completions(journal):
    with FaultServer() as server:
        backend = teacher(server, kind="completion", omit=["temperature"], token_limit_field="max_completion_tokens")
        (response,), _ = journal.ask(backend, [question("Once upon")], "n")
    assert server.paths == ["/v1/completions"] and response.text == "answer to Once upon"
    assert server.bodies == [{"model": "test-model", "prompt": "Once upon", "max_completion_tokens": 16}]


def test_samples_of_one_question_are_different_draws(journal):
    with FaultServer() as server:
        asked = [question("a", {"temperature": 1.0, "seed": 3}, sample=at) for at in range(3)]
        journal.ask(teacher(server), asked, "n")
    assert sorted(body["seed"] for body in server.bodies) == [3, 4, 5]


def test_many_at_once_and_never_more_than_allowed(journal):
    with FaultServer(latency=0.01) as server:
        progress = []
        responses, infos = journal.ask(
            teacher(server, max_in_flight=7), questions(150), "n", lambda done, total: progress.append((done, total))
        )
        assert [response.text for response in responses] == [f"answer to question {at}" for at in range(150)]
        assert server.requests == 150 and 2 <= server.most_in_flight <= 7
        assert progress == sorted(progress) and progress[-1] == (150, 150)
        assert not any(info.reused for info in infos) and outcomes(journal) == {"answered": 150}
        assert journal.store.claim([info.key for info in infos]).held == {}
        again, infos = journal.ask(teacher(server), questions(150), "n")
    assert again == responses and server.requests == 150 and all(info.reused for info in infos)


def test_without_a_journal():
    with FaultServer(script=["500", "", "html"]) as server:
        answers = dict(teacher(server).ask(questions(20)))
    assert {index: response.text for index, response in answers.items()} == {
        at: f"answer to question {at}" for at in range(20)
    }
    assert server.requests == 22 and list(teacher(server).ask([])) == []


def test_no_answer_waits_for_a_slow_one(journal):
    """The others are all answered and on disk while the first one is still held."""
    release = threading.Event()

    class Held(FaultServer):
        async def _answer(self, request, body, question, fault):
            if question == "question 0":
                while not release.is_set():
                    await asyncio.sleep(0.005)
            return await super()._answer(request, body, question, fault)

    def watch(done, total):
        if done == 99:
            release.set()

    with Held() as server:
        responses, _ = journal.ask(teacher(server, max_in_flight=8), questions(100), "n", watch)
    assert release.is_set() and all(response.failure is None for response in responses)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_class(journal, fault):
    with FaultServer({fault: 1.0}) as server:
        backend = teacher(server, attempts=2, deadline=1.0 if CLASSES[fault] == "timeout" else 20.0)
        (response,), (info,) = journal.ask(backend, questions(1), "n")
    assert (response.failure, response.text) == (CLASSES[fault], "") and not info.reused
    assert server.requests == 2 and len(journal.store.attempts()) == 2
    outcome = "malformed" if response.failure == "malformed" else "failed"
    assert outcomes(journal) == {outcome: 2} and journal.possibly_paid() == []


@pytest.mark.parametrize(
    ("status", "text", "failure"),
    [
        (400, '{"error": {"message": "unknown field"}}', "bad_request"),
        (400, '{"error": {"code": "context_length_exceeded"}}', "context_exceeded"),
        (400, '{"error": {"code": "content_filter"}}', "content_filter"),
        (422, "no", "bad_request"),
        (413, "too large", "bad_request"),
    ],
)
def test_what_no_attempt_would_mend_is_asked_once(journal, status, text, failure):
    with FaultServer(status=(status, text)) as server:
        responses, _ = journal.ask(teacher(server), questions(5), "n")
    assert {response.failure for response in responses} == {failure} and server.requests == 5


@pytest.mark.parametrize(("seed", "count"), [(1, 200), pytest.param(2, 1000, marks=pytest.mark.slow)])
def test_a_fifth_of_all_requests_goes_wrong(journal, seed, count):
    share = 0.2 / len(FAULTS)
    with FaultServer(dict.fromkeys(FAULTS, share), seed=seed) as server:
        backend = teacher(server, deadline=2.5, attempts=8, max_in_flight=32)
        responses, infos = journal.ask(backend, questions(count), "n")
        assert len(server.met) >= 12 and server.requests - server.met[""] > 0.15 * count
        for at, response in enumerate(responses):
            if response.failure is None:
                assert (response.text, response.served_model) == (f"answer to question {at}", "test-model")
            else:
                assert response.failure in CLASSES.values()
        failed = [response for response in responses if response.failure is not None]
        assert len(failed) <= count // 100
        attempts = journal.store.attempts()
        assert len(attempts) <= count + backend.retry_budget(count) and max(server.asked.values()) <= 8
        assert len(attempts) == server.requests >= sum(server.billed.values())
        assert {attempt.outcome for attempt in attempts} <= {"answered", "failed", "malformed"}
        assert server.most_in_flight <= 32
        with sqlite3.connect(journal.store.path) as database:
            texts = {text for (text,) in database.execute("SELECT text FROM answer")}
        database.close()
        assert texts == {f"answer to question {at}" for at in range(count) if responses[at].failure is None}
        # The next run asks only what failed.
        server.faults, before = {}, server.requests
        responses, _ = journal.ask(teacher(server), questions(count), "n")
        assert all(response.failure is None for response in responses)
        assert server.requests - before == len(failed)


def test_the_retry_budget_ends_a_hopeless_run(journal):
    with FaultServer({"500": 0.9, "empty_choices": 0.1}) as server:
        backend = teacher(server, attempts=50, retry_share=0.5, max_in_flight=4)
        responses, _ = journal.ask(backend, questions(14), "n")
    assert all(response.failure in ("server", "empty") for response in responses)
    assert server.requests == 14 + backend.retry_budget(14) == 14 + 17


def test_failed_questions_come_last(journal):
    with FaultServer(script=["500"] * 3) as server:
        journal.ask(teacher(server, max_in_flight=2), questions(40), "n")
    order = [body["messages"][-1]["content"] for body in server.bodies]
    assert set(order[-3:]) == {name for name, times in server.asked.items() if times == 2}
    assert len(order) == 43


@pytest.mark.parametrize(
    ("served", "serves", "accepted"),
    [
        ("test-model", [], True),
        ("test-model-2026-01-01", [], True),
        ("test-model@abc", [], True),
        ("test-model-mini", [], False),
        ("test-model2", [], False),
        ("other", [], False),
        ("other", ["oth*"], True),
        ("test-model", ["other"], False),
    ],
)
def test_which_model_may_answer(served, serves, accepted):
    assert teacher(FaultServer(), serves=serves).wire.accepts(served) is accepted


def test_log_probabilities_are_kept_with_the_answer(journal, tmp_path):
    top = [{"token": "answer", "logprob": -0.25}, {"token": "\u7b54", "logprob": -1.5}]

    def with_logprobs(body, sound):
        if body.get("top_logprobs") == 2:
            sound["choices"][0]["logprobs"] = {"content": [{"token": "answer", "logprob": -0.25, "top_logprobs": top}]}
        return sound

    with FaultServer(reply=with_logprobs) as server:
        (plain,), _ = journal.ask(teacher(server), [question("a")], "n")
        asked = question("a", {"temperature": 0.0, "top_logprobs": 2})
        (first,), _ = journal.ask(teacher(server), [asked], "n")
        assert server.requests == 2  # with them it is another question
    assert plain.logprobs is None
    assert first.logprobs == (TokenLogprob("answer", -0.25, (("answer", -0.25), ("\u7b54", -1.5))),)
    with Journal(tmp_path / "journal.sqlite") as other:
        (again,), (info,) = other.ask(teacher(server), [asked], "n")
    assert again == first and info.reused
