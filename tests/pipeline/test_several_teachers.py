"""Several teachers in one pipeline, by weight, by task and by vote: who is asked what, and what the records say."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack

import pytest
from rich.console import Console
from teachers.fault_server import FaultServer

from distill_dagster.config.load import examine
from distill_dagster.config.models import TeachersOptions
from distill_dagster.console import dropped_tree, trace_tree
from distill_dagster.errors import BudgetError
from distill_dagster.lineage.engine import Services, head_version
from distill_dagster.lineage.trace import trace
from distill_dagster.stages.estimate import estimate
from distill_dagster.stages.panel import elect, teacher_of
from distill_dagster.stages.project import Project
from pipeline import tiny
from pipeline.kinds import table
from pipeline.tiny import Tiny

WANTED = (*tiny.SOURCE, *tiny.DATA)
NAMES = ("ada", "bob", "cyd")


def answering(name: str):
    """A server's reply: what the question names; `bob` says green for words before m, `cyd` says red to all."""

    def reply(body, sound):
        words = body["messages"][-1]["content"].split()
        right = next(word for word in words if word in ("red", "green"))
        said = {"ada": right, "bob": "Green." if words[-1][0] < "m" else right, "cyd": " RED"}[name]
        sound["choices"][0]["message"]["content"] = said
        return sound

    return reply


@pytest.fixture
def servers():
    """A server a teacher."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(FaultServer(reply=answering(name), model=f"model-{name}")) for name in NAMES}


def project(folder, servers, teachers: str, more: str = "") -> Tiny:
    """The project that reads files, with teachers behind APIs."""
    made = tiny.parcels(folder)
    config = made.folder / "assets_config"
    (config / "teacher.yaml").unlink()
    entries = [f"{{model: model-{name}, valid_from: 2020-01-01, input_per_million: {cost}, output_per_million: {cost}}}"
               for cost, name in enumerate(NAMES, 1)]  # fmt: skip
    prices = f"kind: prices\nname: list\ncurrency: EUR\nentries: [{', '.join(entries)}]\n"
    (config / "prices.yaml").write_text(prices, "utf-8")
    for name, server in servers.items():
        text = (
            f"kind: teacher\nname: {name}\nbackend: openai\nmodel: model-{name}\nrevision: '1'\nprompt_style: short\n"
            f"prices: list\nendpoint: {{url: '{server.url}', deadline: 20.0}}\n"
        )
        (config / f"{name}.yaml").write_text(text, "utf-8")
    made.edit("pipeline.yaml", "teacher: nano_teacher\n", f"{teachers}\n{more}")
    made.edit("pipeline.yaml", "filtering: [refusal, exact_duplicate]", "filtering: [exact_duplicate]")
    return made


def asked(servers) -> dict[str, int]:
    return {name: server.requests for name, server in servers.items() if server.requests}


WEIGHTS = "teachers: [{teacher: ada, weight: 3}, {teacher: bob, weight: 1}]"


def test_by_weight(tmp_path, servers):
    made = project(tmp_path / "p", servers, WEIGHTS)
    found = made.run(WANTED)
    candidates, calls = table(found["teacher_outputs"], "candidate"), table(found["teacher_outputs"], "call")
    shares = Counter(row["teacher"] for row in candidates)
    assert set(shares) == {"ada", "bob"} and shares["ada"] > shares["bob"] > 0 and shares.total() == 23
    assert asked(servers) == dict(shares)
    by_call = {row["call_no"]: row for row in calls}
    for row in candidates:
        call = by_call[row["call_no"]]
        assert call["teacher"].split()[0] == row["teacher"] and call["served_model"] == f"model-{row['teacher']}"
    notes = found["teacher_outputs"].record["notes"]
    for name, cost in (("ada", 1), ("bob", 2)):
        mine = [row for row in calls if row["served_model"] == f"model-{name}"]
        assert notes["teachers"][name]["asked"] == len(mine) == shares[name]
        tokens = sum(row["input_tokens"] + row["output_tokens"] for row in mine)
        assert notes["teachers"][name]["cost_micros"] == notes["paid"]["teachers"][name] == tokens * cost
        assert notes["served_model"][name]["here"] == {f"model-{name}": shares[name]}
    assert notes["paid"]["cost_micros"] == sum(row["cost_micros"] for row in calls) == notes["calls"]["cost_micros"]
    funnel = found["filtered_dataset"].record["notes"]["teachers"]
    assert {name: one["candidates"] for name, one in funnel.items()} == dict(shares)
    assert all(one["kept"] + one["dropped"] + one["failed"] == one["candidates"] for one in funnel.values())
    # A trace and its questions name the teacher.
    some = candidates[0]
    (seen,) = trace(made.project().store, some["seed_record_id"])
    assert [row["teacher"] for row in seen.candidates] == [some["teacher"]] and seen.calls[0]["teacher"].startswith(
        some["teacher"]
    )

    # One seed more: one question more, and nobody else's teacher is another one.
    before = {row["seed_record_id"]: row["teacher"] for row in candidates}
    count, number = 0, 1000
    while not count:  # until one falls into D_U
        made.write_lines("seeds.jsonl", [*made.lines("seeds.jsonl"), *tiny.rows("s", number + 1)[number:]])
        after = table(made.run(WANTED)["teacher_outputs"], "candidate")
        count, number = len(after) - len(before), number + 1
    assert count == 1 and sum(asked(servers).values()) == 24
    assert before.items() <= {row["seed_record_id"]: row["teacher"] for row in after}.items()


def test_a_division_moves_only_what_it_must():
    records = [f"{number:032x}" for number in range(4000)]
    two = TeachersOptions.model_validate([{"teacher": "a", "weight": 3.0}, {"teacher": "b", "weight": 1.0}])
    first = {record: teacher_of(two, "task", record) for record in records}
    share = Counter(first.values())["a"] / len(records)
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / len(records)) ** 0.5
    three = TeachersOptions.model_validate([*(two.weights or ()), {"teacher": "c", "weight": 1.0}])
    moved = {
        teacher_of(three, "task", record) for record in records if teacher_of(three, "task", record) != first[record]
    }
    assert moved == {"c"}
    other = TeachersOptions(weights=two.weights, seed=1)
    assert any(teacher_of(other, "task", record) != first[record] for record in records)


def two_tasks(made: Tiny) -> None:
    """A second task whose seeds are those of the first with other words around them."""
    source = made.folder / "assets_config" / "source.yaml"
    text = source.read_text("utf-8")
    text = text.replace(
        "labels: [red, green], max_new_tokens: 4}]",
        "labels: [red, green], max_new_tokens: 4}, {name: paint, kind: label, labels: [red, green]}]",
    )
    for file in ("seeds", "test"):
        old = next(line for line in text.splitlines() if f"{file}.jsonl" in line)
        entry = "{" + old.split("{", 1)[1].rsplit("}", 1)[0].rstrip("]") + "}"
        second = entry.replace(f"{file}.jsonl", f"paint_{file}.jsonl").replace("task: colour", "task: paint")
        new = old.replace("]", f", {second}]") if old.rstrip().endswith("]") else f"{old}\n  - {second}"
        text = text.replace(old, new)
        made.write_lines(f"paint_{file}.jsonl", tiny.rows(f"paint-{file}", 40))
    source.write_text(text, "utf-8")


def test_by_task(tmp_path, servers):
    made = project(tmp_path / "p", servers, "teachers: {by_task: {colour: ada, paint: cyd}}")
    two_tasks(made)
    found = made.run(WANTED)
    rows = table(found["teacher_outputs"], "candidate")
    assert {(row["task"], row["teacher"]) for row in rows} == {("colour", "ada"), ("paint", "cyd")}
    assert asked(servers) == Counter(row["teacher"] for row in rows)
    made.edit("pipeline.yaml", "{by_task: {colour: ada, paint: cyd}}", "{by_task: {colour: ada, red: bob}}")
    problems = examine(made.folder / "assets_config")[1]
    assert any("names no teacher for paint" in str(problem) for problem in problems)


VOTE = "teachers: {vote: [ada, bob, cyd]}"


def test_a_vote(tmp_path, servers):
    made = project(tmp_path / "p", servers, VOTE)
    found = made.run(WANTED)
    assert asked(servers) == dict.fromkeys(NAMES, 23)
    candidates, ballots = (table(found["teacher_outputs"], name) for name in ("candidate", "vote"))
    assert len(candidates) == 23 and len(ballots) == 69
    assert len(table(found["teacher_outputs"], "call")) == 69
    for row in candidates:
        mine = [one for one in ballots if one["seed_record_id"] == row["seed_record_id"]]
        said = [one["answer"] for one in mine]
        assert [one["teacher"] for one in mine] == list(NAMES) and said[2] == "red"
        (most, count), *_ = Counter(said).most_common()
        assert row["answer"] == most and count >= 2
        assert [one["agrees"] for one in mine] == [one == most for one in said]
        assert row["teacher"] == next(one["teacher"] for one in mine if one["agrees"])
        assert row["call_no"] == next(one["call_no"] for one in mine if one["agrees"])
    note = found["teacher_outputs"].record["notes"]["vote"]
    counts = Counter(sum(one["agrees"] for one in ballots if one["seed_no"] == row["seed_no"]) for row in candidates)
    assert note["elections"] == 23 and note["unanimous"] == counts[3] > 0 and counts[2] > 0
    assert note["agreement"] == pytest.approx((counts[3] + counts[2] * 2 / 3) / 23)
    (seen,) = trace(made.project().store, candidates[0]["record_id"])
    assert {row["teacher"].split()[0] for row in seen.calls} == set(NAMES)
    assert [vote["teacher"] for vote in seen.candidates[0]["votes"]] == list(NAMES)
    for tree in (trace_tree(seen), dropped_tree(seen)):
        with (console := Console(width=200)).capture() as captured:
            console.print(tree)
        said = captured.get()
        assert f"teacher {candidates[0]['teacher']}" in said
        for vote in (one for one in ballots if one["seed_record_id"] == candidates[0]["seed_record_id"]):
            assert f"{vote['teacher']} {'agrees' if vote['agrees'] else 'differs'}" in said

    # The teacher alone has answered all of this before, and a smaller vote as well.
    made.edit("pipeline.yaml", VOTE, "teachers: {vote: [ada, cyd]}")
    found = made.run(WANTED)
    made.edit("pipeline.yaml", "teachers: {vote: [ada, cyd]}", "teacher: ada")
    made.run(WANTED)
    assert asked(servers) == dict.fromkeys(NAMES, 23)
    # Two that differ tie.
    candidates, note = table(found["teacher_outputs"], "candidate"), found["teacher_outputs"].record["notes"]["vote"]
    tied = [row for row in candidates if row["status"] == "failed"]
    assert {row["failure"] for row in tied} == {"vote.tie"} and len(tied) == note["vote.tie"] > 0
    assert len(candidates) == 23 and all(row["answer"] == "red" for row in candidates if row["status"] == "ok")
    decisions = table(found["filtered_dataset"], "decision")
    assert Counter((row["verdict"], row["reason"]) for row in decisions)["failed", "vote.tie"] == len(tied)
    # ... or the one that the file names first decides.
    made.edit("pipeline.yaml", "teacher: ada", "teachers: {vote: [ada, cyd], ties: first}")
    found = made.run(WANTED)
    assert all(row["teacher"] == "ada" for row in table(found["teacher_outputs"], "candidate"))


def test_elections():
    def vote(*answers, **options):
        result = elect(TeachersOptions(vote=["a", "b", "c", "d"][: len(answers)], **options), answers)
        return result.winner, result.failure

    assert vote("x", "y", "y") == (1, None)
    assert vote("x", "y", "z") == (None, "vote.tie") and vote("x", "y", "z", ties="first") == (0, None)
    assert vote(None, None, "z") == (2, None) and vote(None, None, None) == (None, None)
    assert vote(None, None, "z", agreement=0.5) == (None, "vote.minority")
    assert vote("x", "y", "x", "y") == (None, "vote.tie")
    assert vote("x", "y", "y", "y", agreement=0.75) == (1, None)


def test_saying_nothing_is_no_vote():
    options = TeachersOptions(vote=["a", "b", "c"])
    assert elect(options, ["", "", "red"]).winner == 2
    assert elect(options, ["", None, ""]).winner is None


def test_a_budget_is_each_teachers_own(tmp_path, servers):
    made = project(tmp_path / "p", servers, WEIGHTS)
    made.append("bob.yaml", "budget: {calls: 2}\n")
    with pytest.raises(BudgetError, match="teacher bob model-bob@1: .*2 of 2 calls"):
        made.run(WANTED)
    assert asked(servers)["bob"] == 2 and asked(servers)["ada"] > 2
    made.edit("bob.yaml", "budget: {calls: 2}\n", "")
    made.run(WANTED)
    assert sum(asked(servers).values()) == 23


def test_an_estimate_adds_them_up(tmp_path, servers):
    made = project(tmp_path / "p", servers, WEIGHTS)
    found = estimate(made.project(), "parcels")
    assert not asked(servers) and found.currency == "EUR"
    questions = {part.name: part.to_ask for part in found.parts}
    titles = [
        f"parcels/{stage} ({name})" for name in ("ada", "bob") for stage in ("teacher_outputs: labeling", "eval_report")
    ]
    assert list(questions) == titles
    assert questions[titles[0]] + questions[titles[2]] == 23 and questions[titles[1]] + questions[titles[3]] == 16
    made.run(WANTED)
    again = {part.name: part.to_ask for part in estimate(made.project(), "parcels").parts}
    assert again[titles[0]] == again[titles[2]] == 0 and again[titles[1]] == questions[titles[1]]
    assert asked(servers) == {"ada": questions[titles[0]], "bob": questions[titles[2]]}


@pytest.mark.slow
@pytest.mark.needs_torch
@pytest.mark.parametrize("teachers", [WEIGHTS, VOTE])
def test_the_report_has_one_column_for_all(tmp_path, servers, teachers):
    made = project(tmp_path / "p", servers, teachers)
    made.run()
    before = asked(servers)
    found = head_version(made.project().store, ("parcels", "eval_report"))
    assert found is not None
    report = json.loads(found[0].local("report.json").read_text("utf-8"))
    scores = {arm: entry["value"] for arm, entry in report["tasks"][0]["arms"].items()}
    rows = [row for row in found[0].table("item_score").to_pylist() if row["arm"].startswith("teacher")]
    if teachers == VOTE:
        assert sum(before.values()) == 3 * (23 + 16) and "the vote of ada, bob, cyd" in report["notice"]
        assert scores["teacher_ada"] == 1.0 > scores["teacher_cyd"] and scores["teacher"] >= scores["teacher_cyd"]
        assert Counter(row["arm"] for row in rows) == dict.fromkeys(["teacher", *(f"teacher_{n}" for n in NAMES)], 16)
    else:
        assert sum(before.values()) == 23 + 16 and "ada, bob together" in report["notice"]
        assert {row["arm"] for row in rows} == {"teacher"}


def test_a_pipeline_of_the_same_teacher_alone_asks_nothing(tmp_path, servers):
    """The panel's members keep the names that their answers have in the journal."""
    made = project(tmp_path / "p", servers, "teacher: ada")
    made.run(WANTED)
    made.edit("pipeline.yaml", "teacher: ada", WEIGHTS)
    at_work = Project(made.settings)
    at_work.run(at_work.select("parcels", WANTED), Services(at_work.state))
    assert asked(servers)["ada"] == 23 and 0 < asked(servers)["bob"] < 23


@pytest.mark.parametrize(
    ("teachers", "more", "said"),
    [
        ("teachers: [{teacher: ada}]", "", "needs at least two teachers"),
        ("teachers: [{teacher: ada}, {teacher: ada}]", "", "names a teacher twice"),
        ("teachers: [{teacher: ada}, {teacher: eve}]", "", "no teacher is named 'eve'"),
        ("teachers: {vote: [ada, bob], seed: 3}", "", "`seed` belongs to `weights`"),
        ("teachers: {vote: [ada, bob]}", "knowledge: [curation]", "teachers vote on answers to seeds"),
        (WEIGHTS, "knowledge: [curation]", "weights cannot divide it"),
        (f"teacher: ada\n{WEIGHTS}", "", "give `teacher` or `teachers`, not both"),
        ("teachers: {by_task: {colour: ada, size: bob}}", "", "the source has no task 'size'"),
    ],
)
def test_what_check_says(tmp_path, servers, teachers, more, said):
    made = project(tmp_path / "p", servers, teachers, f"{more}\n")
    assert any(said in str(problem) for problem in examine(made.folder / "assets_config")[1])
