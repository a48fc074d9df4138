"""A pipeline whose teacher is behind an API, from YAML: what is asked again after which change; what is recorded."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import pytest
from fault_server import FaultServer
from pipeline import tiny
from pipeline.tiny import Tiny

from distill_dagster.config.models import Split
from distill_dagster.console import failed
from distill_dagster.domains.split import assign
from distill_dagster.errors import DistillError, TeacherError
from distill_dagster.lineage.engine import Services, head_version
from distill_dagster.stages import teaching
from distill_dagster.stages.project import Project

WANTED = (*tiny.SOURCE, *tiny.DATA)
TEACHER = """\
kind: teacher
name: nano_teacher
backend: openai
model: test-model
revision: "2026-01"
prompt_style: short
endpoint:
  url: URL
  api_key_env: TEACHER_KEY
  deadline: 20.0
  attempts: 3
"""
CANARY = "sk-canary-51c0ffee"


def colour(body, sound):
    """The colour that the question names."""
    said = next(word for word in body["messages"][-1]["content"].split() if word in ("red", "green"))
    sound["choices"][0]["message"]["content"] = said
    return sound


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    with FaultServer(reply=colour) as running:
        yield running


@pytest.fixture
def project(tmp_path, server):
    made = tiny.parcels(tmp_path / "parcels")
    (made.folder / "assets_config" / "teacher.yaml").write_text(TEACHER.replace("URL", server.url), "utf-8")
    return made


def asked(server, project: Tiny, names=WANTED, namespace=None) -> int:
    """Materialize the data half; how many requests that took. Every candidate is the right one."""
    before = server.requests
    settings = project.settings if namespace is None else replace(project.settings, namespace=namespace)
    at_work = Project(settings)
    at_work.run(at_work.select(project.name, names), Services(at_work.state))
    found = head_version(at_work.store, (project.name, "teacher_outputs"))
    assert found is not None
    for row in found[0].table("candidate").to_pylist():
        *_, shown, said = row["messages"]
        assert said["parts"][0]["text"] in shown["parts"][0]["text"].split()
    return server.requests - before


def notes(project: Tiny) -> dict:
    found = head_version(project.project().store, (project.name, "teacher_outputs"))
    assert found is not None
    return found[0].run(found[1])["notes"]


def unlabeled_text(depot: str, start: int) -> str:
    """An input that falls into D_U."""
    texts = (f"quux zorgle red blivet frobnic wexle {number}" for number in range(start, start + 99))
    return next(text for text in texts if assign([{"input": text, "subject_key": depot}], Split()) == ["unlabeled"])


def test_what_is_asked_again_after_which_change(server, project):
    count = asked(server, project)
    assert count == 23 and notes(project)["calls"]["asked"] == 23
    assert notes(project)["served_model"] == {"earlier": {}, "here": {"test-model": 23}}
    assert asked(server, project) == 0

    # one record added
    lines = project.lines("seeds.jsonl")
    project.write_lines("seeds.jsonl", [*lines, {"text": unlabeled_text("new", 0), "colour": "red", "depot": "new"}])
    assert asked(server, project) == 1
    # one record edited
    lines = project.lines("seeds.jsonl")
    lines[-1]["text"] = unlabeled_text("new", 200)
    project.write_lines("seeds.jsonl", lines)
    assert asked(server, project) == 1
    count += 1
    # another filter threshold
    project.edit("pipeline.yaml", "[refusal,", "[{name: length, max_chars: 90},")
    assert asked(server, project) == 0
    # limits are no identity
    project.edit("teacher.yaml", "attempts: 3", "attempts: 4\n  max_in_flight: 3\n  requests_per_minute: 100000")
    assert asked(server, project) == 0
    # a declared teacher at another address
    with FaultServer(reply=colour) as elsewhere:
        project.edit("teacher.yaml", server.url, elsewhere.url)
        assert asked(elsewhere, project) == 0
        project.edit("teacher.yaml", elsewhere.url, server.url)
    # another pipeline with the same question to the same teacher
    config = project.folder / "assets_config"
    (config / "second.yaml").write_text((config / "pipeline.yaml").read_text("utf-8") + "name: second\n", "utf-8")
    assert asked(server, Tiny(project.folder, "second")) == 0
    assert notes(Tiny(project.folder, "second"))["calls"] == {
        **dict.fromkeys(("asked", "failed", "refused", "input_tokens", "output_tokens", "cost_micros"), 0),
        "reused": count,
    }
    # another namespace
    assert asked(server, project, namespace="matter_two") == count
    # another system prompt
    prompt = "prompts: [{task: colour, style: short, system: Be brief., user: '{{ input }}'}]\n"
    project.append("source.yaml", prompt)
    assert asked(server, project) == count
    # an answer in another form
    project.edit("teacher.yaml", "attempts: 4", "omit: [temperature]\n  attempts: 4")
    assert asked(server, project) == count
    # another declared revision
    project.edit("teacher.yaml", '"2026-01"', '"2026-02"')
    assert asked(server, project) == count
    assert asked(server, project) == 0


def test_an_undeclared_teacher_is_its_address(server, project):
    project.edit("teacher.yaml", 'revision: "2026-01"\n', "")
    assert asked(server, project) == 23
    with FaultServer(reply=colour) as elsewhere:
        project.edit("teacher.yaml", server.url, elsewhere.url)
        assert asked(elsewhere, project) == 23


def test_another_schema_asks_everything_anew(server, project):
    def as_json(body, sound):
        sound = colour(body, sound)
        if "response_format" in body:
            sound["choices"][0]["message"]["content"] = json.dumps(sound["choices"][0]["message"]["content"])
        return sound

    server.reply = as_json
    assert asked(server, project) == 23
    project.append("teacher.yaml", "  response_schema: {enum: [red, green]}\n")
    before = server.requests
    project.run(WANTED)
    assert server.requests - before == 23
    assert all(body["response_format"]["json_schema"]["schema"] for body in server.bodies[before:])


def test_another_served_model_stops_or_is_said(server, project):
    assert asked(server, project) == 23
    server.model = "test-model-2026-11-11"
    lines = project.lines("seeds.jsonl")
    project.write_lines("seeds.jsonl", [*lines, {"text": unlabeled_text("new", 0), "colour": "red", "depot": "new"}])
    project.edit("teacher.yaml", "attempts: 3", "attempts: 3\n  served_model: pin")
    with pytest.raises(TeacherError, match="earlier answers came from 'test-model', and now"):
        project.run(WANTED)
    project.edit("teacher.yaml", "served_model: pin", "served_model: warn")
    assert asked(server, project) == 1
    assert notes(project)["served_model"] == {
        "earlier": {"test-model": 23},
        "here": {"test-model": 23, "test-model-2026-11-11": 1},
    }


def test_failed_questions_are_recorded_with_their_class_and_asked_again(server, project):
    server.script = ["html"] * 30
    project.edit("teacher.yaml", "attempts: 3", "attempts: 1\n  max_in_flight: 2")
    with pytest.raises(TeacherError, match="first 20 requests all failed .malformed"):
        project.run(WANTED)
    server.script = [""] * 20 + ["html"] * 3
    project.run(WANTED)
    assert notes(project)["failures"] == {"malformed": 3}
    assert notes(project)["calls"]["failed"] == 3
    found = head_version(project.project().store, ("parcels", "teacher_outputs"))
    assert found is not None
    rows = found[0].table("candidate").to_pylist()
    assert sorted({row["failure"] for row in rows}, key=str) == [None, "malformed"]
    kept = head_version(project.project().store, ("parcels", "filtered_dataset"))
    assert kept is not None
    assert sum(row["origin"] == "teacher" for row in kept[0].table("example").to_pylist()) <= 20
    database = sqlite3.connect(project.settings.state / "journal.sqlite")
    put_aside, with_detail = database.execute("SELECT count(*), count(detail) FROM quarantine").fetchone()
    assert put_aside == with_detail and put_aside in (23, 24)  # the other request in flight may have come back too
    database.close()


def test_the_room_that_a_task_gives_is_asked_for(server, project):
    def room() -> object:
        return project.project().nodes["parcels", "teacher_outputs"].config.get("room")

    assert asked(server, project) == 23 and server.bodies[-1]["max_tokens"] == 4
    project.edit("source.yaml", "max_new_tokens: 4", "max_new_tokens: 64")
    assert asked(server, project) == 23 and server.bodies[-1]["max_tokens"] == 64
    assert room() == {"colour": 64}
    project.edit("source.yaml", ", max_new_tokens: 64", "")  # the default was never part of the identity
    assert room() is None
    project.edit("teacher.yaml", "prompt_style: short", "prompt_style: short\nsampling: {max_new_tokens: 8}")
    assert asked(server, project) == 23 and server.bodies[-1]["max_tokens"] == 8
    project.edit("source.yaml", "kind: label", "max_new_tokens: 16, kind: label")  # the teacher's own limit counts
    assert asked(server, project) == 0 and room() is None


def test_one_question_about_many_passages_is_many_questions(server, project):
    """Each is asked, none is dropped as a copy, and the split has all parts."""
    config = project.folder / "assets_config"
    columns = "{path: FILE, task: colour, licence: CC0-1.0, columns: {input: ask, context: text, answer: colour}}"
    text = (config / "source.yaml").read_text("utf-8").partition("seeds:")[0]
    text += (
        f"seeds: [{columns.replace('FILE', 'seeds.jsonl')}]\nevaluation: [{columns.replace('FILE', 'test.jsonl')}]\n"
    )
    (config / "source.yaml").write_text(text, "utf-8")
    project.edit("pipeline.yaml", "[refusal, exact_duplicate]", "[exact_duplicate, near_duplicate, decontamination]")
    for file in ("seeds.jsonl", "test.jsonl"):
        lines = [{**row, "ask": "Which colour?"} for row in project.lines(file)]
        project.write_lines(file, lines)
    made = project.run(WANTED)
    seeds = made["seed_set"].version.table("seed")["part"].to_pylist()
    assert {"teacher", "gold", "unlabeled"} == set(seeds)
    assert server.requests == seeds.count("unlabeled")
    assert made["filtered_dataset"].record["notes"]["funnel"]["kept"] == server.requests


def test_what_failed_is_asked_again_by_the_next_run_and_nothing_else(server, project):
    project.edit("teacher.yaml", "attempts: 3", "attempts: 1\n  max_in_flight: 1")
    server.script = ["", "500", "", "html", "500"]
    first = project.run(WANTED)
    assert server.requests == 23 and notes(project)["failures"] == {"malformed": 1, "server": 2}
    assert failed(notes(project)) == ", [red]3 of 23 failed (malformed 1, server 2)[/]"
    states = project.states()
    outputs = states["parcels/teacher_outputs"]
    assert (outputs.state, outputs.reason) == ("stale", "3 of 23 questions have no answer: malformed 1, server 2")
    assert states["parcels/filtered_dataset"].state == "downstream"

    server.script = ["500", "html", "500"]  # the same questions fail in the same way
    second = project.run(WANTED)
    assert server.requests == 26 and {name for name, made in second.items() if not made.reused} == {"teacher_outputs"}
    assert {name: made.version.version for name, made in second.items()} == {
        name: made.version.version for name, made in first.items()
    }

    assert asked(server, project) == 3
    assert notes(project)["calls"]["failed"] == 0 and failed(notes(project)) == ""
    assert {project.states()[f"parcels/{name}"].state for name in WANTED} == {"fresh"}
    assert all(made.reused for made in project.run(WANTED).values()) and server.requests == 29


def test_which_failures_are_worth_another_run():
    said = {"calls": {"asked": 3, "reused": 2}, "failures": {"bad_request": 1, "not_recorded": 2, "timeout": 1}}
    assert teaching.unanswered(said) == "2 of 5 questions have no answer: bad_request 1, timeout 1"
    report = teaching.FINAL | teaching.REFUSED
    assert teaching.unanswered(said, report) == "1 of 5 questions have no answer: timeout 1"
    assert teaching.unanswered({**said, "failures": {"content_filter": 4}}, report) == ""


@pytest.mark.needs_torch
@pytest.mark.slow
def test_a_test_item_that_failed_is_asked_again_and_the_report_made_again(server, project):
    project.edit("teacher.yaml", "attempts: 3", "attempts: 1\n  max_in_flight: 1")
    server.script = [""] * 23 + ["500", "500"]
    project.run()
    assert server.requests == 23 + 16
    assert project.unfresh() == {"eval_report", "deployed_student"}
    assert project.states()["parcels/eval_report"].reason == "2 of 16 questions have no answer: server 2"
    again = project.run()
    assert server.requests == 23 + 16 + 2 and not project.unfresh()
    assert {name for name, made in again.items() if not made.reused} == {"eval_report", "deployed_student"}


def test_the_record_of_the_teacher_and_no_key_anywhere(server, project):
    assert asked(server, project) == 23
    assert {header["Authorization"] for header in server.headers} == {f"Bearer {CANARY}"}
    found = head_version(project.project().store, ("parcels", "teacher_model"))
    assert found is not None
    record = json.loads(found[0].local("teacher.json").read_text("utf-8"))
    assert (record["model"], record["revision"], record["endpoint"]["kind"]) == ("test-model", "2026-01", "chat")
    assert "url" not in record["endpoint"] and "max_in_flight" not in record["endpoint"]
    for path in project.folder.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://169.254.1.1:9/v1", "link-local"),
        ("http://10.1.2.3:9/v1", "private network"),
        ("http://[::ffff:10.1.2.3]:9/v1", "private network"),
        ("http://169.254.169.254/v1", "metadata service"),
    ],
)
def test_an_address_in_yaml_that_leads_elsewhere_is_refused(server, project, url, words):
    project.edit("teacher.yaml", server.url, url)
    project.edit("teacher.yaml", "prompt_style: short", "prompt_style: short\negress_class: third_party")
    with pytest.raises(DistillError, match=words):
        project.run(WANTED)
    assert server.requests == 0
    database = sqlite3.connect(project.settings.state / "journal.sqlite")
    assert database.execute("SELECT count(*) FROM attempt").fetchone() == (0,)
    database.close()
