"""The provider's batch interface against a real server: late, partial, expired, refused, lost and killed jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from batch_server import BatchServer
from openai_asking import CANARY, outcomes, questions

from distill_dagster.config.endpoint import BatchOptions, EndpointOptions
from distill_dagster.config.models import PriceEntry, PricesConfig
from distill_dagster.errors import TeacherError
from distill_dagster.teachers._openai_batch import Batched
from distill_dagster.teachers.journal import Journal
from distill_dagster.teachers.openai import Backend
from distill_dagster.teachers.prices import tariff_on


def teacher(server, folder, most=100, report=lambda said: None, revision="r1", **options):
    batch = BatchOptions(poll=0.001, most=most)
    endpoint = EndpointOptions(url=server.url, mode="batch", batch=batch, **{"deadline": 60.0, **options})
    backend = Backend("test-model", endpoint=endpoint, identity="teacher", revision=revision, pause=0.001)
    return Batched(backend, endpoint, folder / "batches", "tests", report)


def ask(folder, asked, server, **options):
    """Responses, and how many of them were new, through the folder's journal."""
    with Journal(folder / "j.sqlite") as journal:
        responses, infos = journal.ask(teacher(server, folder, **options), asked, "tests")
    return responses, sum(not info.reused for info in infos)


def test_jobs_answer_everything_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    asked, said = questions(25), []
    with BatchServer(looks=3, busy=2) as server:
        responses, new = ask(tmp_path, asked, server, most=10, api_key_env="TEACHER_KEY", report=said.append)
        assert [response.text for response in responses] == [f"answer to question {at}" for at in range(25)]
        assert new == 25 and len(server.jobs) == 3 and set(server.billed.values()) == {1}
        assert {(one.input_tokens, one.output_tokens, one.served_model) for one in responses} == {(7, 3, "test-model")}
        assert any("is in_progress, 0 of 10" in line for line in said) and any(
            "completed, 10 of 10" in line for line in said
        )
        assert {header["Authorization"] for header in server.headers} == {f"Bearer {CANARY}"}
        before = server.calls.total()
        again, new = ask(tmp_path, asked, server)
        assert again == responses and new == 0 and server.calls.total() == before
        # Another revision is another teacher.
        assert ask(tmp_path, asked[:2], server, revision="r2")[1] == 2 and server.billed["question 0"] == 2
    assert all(CANARY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_partial_failures_have_their_classes_and_are_asked_again(tmp_path):
    def line(text, sound):
        number = int(text.split()[-1])
        if number == 1:
            return {**sound, "response": {"status_code": 500, "body": {"error": "x"}}}
        if number == 2:
            return {**sound, "response": None, "error": {"code": "server_error", "message": "x"}}
        if number == 3:
            sound["response"]["body"]["choices"] = "none"
        if number == 4:
            sound["response"]["body"]["model"] = "another"
        if number == 6:
            return {**sound, "response": None, "error": None}
        return None if number == 5 else sound

    with BatchServer(line=line) as server:
        responses, _ = ask(tmp_path, questions(8), server)
        found = {at: one.failure for at, one in enumerate(responses) if one.failure}
        assert found == {1: "server", 2: "server", 3: "malformed", 4: "wrong_model", 5: "no_answer", 6: "malformed"}
        server.line = None
        responses, new = ask(tmp_path, questions(8), server)
        assert new == 6 and [one.failure for one in responses] == [None] * 8
        assert server.billed["question 0"] == server.billed["question 7"] == 1 and len(server.jobs) == 2
    with Journal(tmp_path / "j.sqlite") as journal:
        assert outcomes(journal) == {"answered": 8, "failed": 4, "malformed": 2}


def test_a_job_may_be_taken_as_created(tmp_path):
    with BatchServer() as server:
        server.taken = 201
        responses, _ = ask(tmp_path, questions(3), server)
    assert [one.failure for one in responses] == [None] * 3 and len(server.jobs) == 1


def test_a_placeholder_for_a_key_spoils_no_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "-")

    def line(text, sound):
        if text == "question 1":
            return {**sound, "response": {"status_code": 403, "body": {"error": "no"}}}
        sound["response"]["body"]["choices"][0]["message"]["content"] = "yes - no"
        return sound

    with BatchServer(line=line) as server:
        responses, _ = ask(tmp_path, questions(2), server, api_key_env="TEACHER_KEY")
    # The provider took the job, so the key is good, and a 403 is about the question.
    assert [(one.text, one.failure) for one in responses] == [("yes - no", None), ("", "bad_request")]


def test_what_expired_is_asked_again(tmp_path):
    with BatchServer(ends=["expired"]) as server:
        responses, _ = ask(tmp_path, questions(9), server)
        assert Counter(one.failure for one in responses) == {None: 4, "expired": 5}
        responses, new = ask(tmp_path, questions(9), server)
        assert new == 5 and {one.failure for one in responses} == {None}
        assert set(server.billed.values()) == {1} and len(server.jobs) == 2


def test_a_job_whose_taking_was_never_heard_of_is_found(tmp_path):
    with BatchServer(lost=1) as server:
        for number in range(5):  # on a later page of the list
            server.jobs[f"older-{number}"] = {"id": f"older-{number}", "status": "completed", "metadata": None}
        server.jobs = dict(reversed(server.jobs.items()))
        responses, _ = ask(tmp_path, questions(6), server)
        assert {one.failure for one in responses} == {None}
        assert len([name for name in server.jobs if name.startswith("batch")]) == 1 and set(server.billed.values()) == {
            1
        }


def test_a_refused_job_says_why_and_the_next_run_sends_another(tmp_path):
    with BatchServer(ends=["failed"]) as server:
        with pytest.raises(TeacherError, match="refused job batch-0: line 1 is not to my liking"):
            ask(tmp_path, questions(3), server)
        responses, _ = ask(tmp_path, questions(3), server)
        assert {one.failure for one in responses} == {None} and len(server.jobs) == 2


def test_another_model_stops_where_it_is_pinned(tmp_path):
    with BatchServer() as server:
        ask(tmp_path, questions(2), server, served_model="pin")
        server.model = "test-model-2026-11-11"
        with pytest.raises(TeacherError, match="earlier answers came from 'test-model', and now"):
            ask(tmp_path, questions(4), server, served_model="pin")


def test_a_run_that_ends_while_it_waits_sends_nothing_again(tmp_path):
    class Killed(BaseException):
        pass

    def kill(seconds):
        raise Killed

    with BatchServer(looks=3) as server:
        asked = questions(12)
        interrupted = teacher(server, tmp_path, most=6)
        interrupted.sleep = kill
        for _ in range(2):
            with pytest.raises(Killed), Journal(tmp_path / "j.sqlite") as journal:
                journal.ask(interrupted, asked, "tests")
        # One question more: one job more, for that one.
        responses, new = ask(tmp_path, questions(13), server, most=6)
        assert new == 13 and {one.failure for one in responses} == {None}
        assert len(server.jobs) == 3 and set(server.billed.values()) == {1}


def test_prices_of_a_job():
    entry = {"model": "m", "valid_from": "2026-01-01", "input_per_million": 2.0, "output_per_million": 8.0}
    half = {"batch_input_per_million": 1.0, "batch_output_per_million": 4.0}
    for given, cost in ((entry, 10), ({**entry, **half}, 5)):
        prices = PricesConfig(kind="prices", name="p", entries=[PriceEntry(**given)])
        assert tariff_on(prices, "m", batch=True).cost(1, 1) == cost and tariff_on(prices, "m").cost(1, 1) == 10
    with pytest.raises(ValueError, match="both prices of a batch job, or neither"):
        PriceEntry(**entry, batch_input_per_million=1.0)


WORKER = Path(__file__).with_name("batch_worker.py")


def run(folder: Path, server: BatchServer, **environment: str) -> int:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(WORKER), str(folder), server.url, "20"]
    return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_every_point_it_sends_no_question_twice(tmp_path, record_property):
    log = tmp_path / "points"
    with BatchServer() as server:
        assert run(tmp_path / "undisturbed", server, DISTILL_FAULT_LOG=str(log)) == 0
    points = [line.split()[2] for line in log.read_text("utf-8").splitlines()]
    assert {"batch.open", "batch.uploaded", "batch.done"} <= set(points)
    chosen = [at for at, name in enumerate(points, 1) if name.startswith("batch.") or "settled" in name]
    for at in chosen:
        folder = tmp_path / str(at)
        with BatchServer(lost=at % 2) as server:
            assert run(folder, server, DISTILL_FAULT_AT=str(at)) == -signal.SIGKILL, points[at - 1]
            assert run(folder, server) == 0
            assert json.loads((folder / "answers.json").read_text()) == [f"answer to question {n}" for n in range(20)]
            assert len(server.billed) == 20 and set(server.billed.values()) == {1}, points[at - 1]
    record_property("kills", len(chosen))
