"""Human review from the command line: a sample goes out, verdicts come in, the data set follows, the gate holds."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pipeline import tiny
from pipeline.tiny import Tiny
from terminal import command

from distill_dagster.errors import ConfigError, GateError
from distill_dagster.evaluation.review import upper_bound
from distill_dagster.lineage.engine import Made, Services, head_version, materialize
from distill_dagster.stages.export import export

DATA = ("seed_set", "eval_set", "prompt_set", "teacher_model", "teacher_outputs", "filtered_dataset")
TEACHER = """\
kind: teacher
name: nano_teacher
backend: recorded
prompt_style: short
recorded: {path: answers.jsonl, input: text, answer: said}
"""
REVIEW = "review: {adjudication: carla, critical_errors: {colour: [wrong colour, no colour]}, max_upper_bound: 0.2}\n"


def project_with(folder: Path, review: str) -> Tiny:
    """Parcels whose teacher is a file, with a review, as far as the filtered data set."""
    made = tiny.parcels(folder)
    made.write_lines("seeds.jsonl", tiny.rows("s", 90))
    (made.folder / "assets_config" / "teacher.yaml").write_text(TEACHER, "utf-8")
    made.write_lines("answers.jsonl", [{**row, "said": row["colour"]} for row in made.lines("seeds.jsonl")])
    made.append("pipeline.yaml", review)
    made.run(DATA)
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A project whose data nobody has read; read only."""
    return project_with(tmp_path_factory.mktemp("review"), REVIEW)


@pytest.fixture
def project(finished: Tiny, tmp_path: Path) -> Tiny:
    return finished.copy(tmp_path / "parcels")


def sample_path(project: Tiny) -> str:
    return str(project.folder / "sample.csv")


def rows_of(project: Tiny, name: str) -> list[dict[str, str]]:
    text = (project.folder / name).read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def hand_back(project: Tiny, name: str, rows: list[dict[str, str]]) -> Path:
    """Write the rows as a spreadsheet would."""
    path = project.folder / name
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def judged(rows: list[dict[str, str]], said: dict[int, str], reviewer: str, errors: dict[int, str] | None = None):
    """The rows with verdicts: accept, but for those named."""
    return [
        {**row, "reviewer": reviewer, "verdict": said.get(at, "accept"), "critical_error": (errors or {}).get(at, "")}
        for at, row in enumerate(rows)
    ]


def filtered(project: Tiny) -> Made:
    return project.run(DATA)["filtered_dataset"]


def decisions(made: Made) -> dict[str, dict[str, Any]]:
    """Decisions by the id of the candidate."""
    outputs = head_version(made.version.store, ("parcels", "teacher_outputs"))
    assert outputs is not None
    ids = {row["candidate_no"]: row["record_id"] for row in outputs[0].table("candidate").to_pylist()}
    return {ids[row["candidate_no"]]: row for row in made.version.side_table(made.run, "decision").to_pylist()}


def test_from_the_sample_to_the_data_set(project: Tiny) -> None:
    before = filtered(project)
    assert before.reused
    out = ("--out", sample_path(project), "--sample", "30", "--reviewers", "anna,ben")
    assert command(project, "review", "export", "parcels", *out).code == 0
    assert not Path(sample_path(project)).exists()
    anna, ben = rows_of(project, "sample.anna.csv"), rows_of(project, "sample.ben.csv")
    assert len(anna) == len({row["record_id"] for row in anna}) == 30 and {row["reviewer"] for row in anna} == {"anna"}
    assert [row["record_id"] for row in anna] == [row["record_id"] for row in ben]

    first = hand_back(
        project, "a.csv", judged(anna, {0: "reject", 1: "reject", 2: "unsure"}, "anna", {0: "wrong colour"})
    )
    second = hand_back(project, "b.csv", judged(ben, {0: "reject", 2: "unsure"}, "ben"))
    said = command(project, "review", "import", "parcels", str(first), str(second))
    assert said.code == 0 and "60 verdicts, 0 rows without one" in said.out, said
    assert project.states()["parcels/filtered_dataset"].reason == "parcels/review changed"

    made = filtered(project)
    found = decisions(made)
    ids = [row["record_id"] for row in anna]
    reasons = [found[record]["reason"] for record in ids]
    # carla decides where they differ, and has said nothing: what is disputed is not kept.
    assert reasons == ["human_review.critical", "human_review.disputed", "human_review.unsure", *[None] * 27]
    look = found[ids[0]]["looks"][-1]
    assert look["rule"] == "human_review" and look["detail"] == "anna: reject [wrong colour]; ben: reject"
    said = command(project, "why-dropped", "parcels", ids[0])
    assert "dropped: human_review.critical" in said.out and "anna" not in said.out  # the source shows no text
    funnel = made.record["notes"]["funnel"]
    assert funnel["kept"] == before.record["notes"]["funnel"]["kept"] - 3
    notes = made.record["notes"]["review"]
    assert notes["reviewers"] == {
        "anna": {"accept": 27, "reject": 2, "unsure": 1},
        "ben": {"accept": 28, "reject": 1, "unsure": 1},
    }
    assert notes["agreement"]["measure"] == "Cohen's kappa" and notes["agreement"]["records"] == 30
    assert [(entry["record"], entry["ruling"]) for entry in notes["disagreements"]] == [(ids[1], "reject: disputed")]
    share = notes["critical"]["all"]
    assert (share["records"], share["critical"], share["errors"]) == (30, 1, {"wrong colour": 1})
    assert share["upper"] == upper_bound(1, 30) < 0.2 and notes["gate"]["passed"]

    # carla settles it; her word brings the record back.
    settled = hand_back(project, "c.csv", judged(anna[1:2], {}, "carla"))
    assert command(project, "review", "import", "parcels", str(settled)).code == 0
    assert decisions(filtered(project))[ids[1]]["reason"] is None
    # The same again says nothing new, and the data set stays.
    said = command(project, "review", "import", "parcels", str(settled), str(first))
    assert "nothing new" in said.out and filtered(project).reused
    versions = project.sealed()
    assert len(versions["parcels/filtered_dataset"]) == 3


def test_the_gate_holds_until_enough_was_read(project: Tiny) -> None:
    built = project.project()
    student = built.nodes["parcels", "student_checkpoint"]
    project.run(["initial_student"])
    with pytest.raises(GateError, match="0 critical errors in 0 reviewed records"):
        materialize(student, built.store, Services(built.state))
    with pytest.raises(GateError, match="critical_errors"):
        export(built, "parcels", project.folder / "out.jsonl")
    assert not (project.folder / "out.jsonl").exists()

    command(project, "review", "export", "parcels", "--out", sample_path(project), "--sample", "20")
    rows = rows_of(project, "sample.csv")
    half = [{**row, "verdict": "accept" if at < 14 else ""} for at, row in enumerate(rows)]
    said = command(project, "review", "import", "parcels", str(hand_back(project, "half.csv", half)))
    assert "14 verdicts, 6 rows without one" in said.out
    made = filtered(project)
    with pytest.raises(GateError, match="0 critical errors in 20 reviewed records, 6 without a verdict"):
        materialize(student, built.store, Services(built.state))
    assert made.record["notes"]["review"]["reviewers"] == {"reviewer_1": {"accept": 14, "blank": 6}}
    whole = [{**row, "verdict": "accept"} for row in rows]
    assert command(project, "review", "import", "parcels", str(hand_back(project, "whole.csv", whole))).code == 0
    made = filtered(project)
    assert made.record["notes"]["review"]["gate"]["passed"]  # 0 of 20: at most 0.139
    assert export(built, "parcels", project.folder / "out.jsonl") == made.version.table("example").num_rows

    # A tighter bound in the file makes the gate judge anew, also where what it guards was made before.
    project.edit("pipeline.yaml", "max_upper_bound: 0.2", "max_upper_bound: 0.1")
    again = filtered(project)
    assert not again.reused and again.version.version == made.version.version
    with pytest.raises(GateError, match="must lie below 0.1"):
        export(project.project(), "parcels", project.folder / "out.jsonl")


def test_a_known_action_does_not_pass_the_gate(project: Tiny) -> None:
    """The gate is judged before the engine looks whether the student was made already."""
    from dataclasses import replace

    built = project.project()
    student = built.nodes["parcels", "student_checkpoint"]
    project.run(["initial_student"])
    made: list[str] = []
    stand_in = replace(student, make=lambda job: (made.append("made"), job.draft.write_json("model.json", {}))[0])
    with pytest.raises(GateError):
        materialize(stand_in, built.store, Services(built.state))
    free = replace(stand_in, admit=lambda inputs, runs: None)
    assert not materialize(free, built.store, Services(built.state)).reused
    with pytest.raises(GateError):
        materialize(stand_in, built.store, Services(built.state))
    assert made == ["made"]


def test_a_pilot_is_not_held_up(project: Tiny) -> None:
    for limit, refused in ((None, True), (20, False)):
        built = project.project(limit)
        admit = built.nodes["parcels", "student_checkpoint"].admit
        for node in built.select("parcels", DATA):
            made = materialize(node, built.store, Services(built.state))
        if refused:
            with pytest.raises(GateError):
                admit({"data": made.version}, {"data": made.run})
        else:
            admit({"data": made.version}, {"data": made.run})


FAULTS = [
    ({"record_id": "0" * 32}, "record '0{32}' is not in the newest data set"),
    ({"answer": "blue"}, "a cell was edited or moved"),
    ({"question": "=1+1"}, "a cell was edited or moved"),
    ({"verdict": "ok"}, "verdict 'ok' is none of accept, reject, unsure"),
    ({"reviewer": ""}, "a verdict without a reviewer"),
    ({"reviewer": "anna@example.org"}, "is no pseudonym"),
    ({"verdict": "reject", "critical_error": "wrong color"}, "Did you mean 'wrong colour'"),
    ({"critical_error": "wrong colour"}, "such a record is to be rejected"),
]


@pytest.mark.parametrize(("change", "words"), FAULTS)
def test_a_faulty_row_is_named_and_nothing_is_taken(project: Tiny, change: dict[str, str], words: str) -> None:
    command(project, "review", "export", "parcels", "--out", sample_path(project), "--sample", "5")
    rows = judged(rows_of(project, "sample.csv"), {}, "anna")
    path = hand_back(project, "faulty.csv", [*rows[:3], {**rows[3], **change}, rows[4]])
    said = command(project, "review", "import", "parcels", str(path))
    assert said.code == 1
    words_said = " ".join(said.err.split())
    assert f"{path}:5: " in words_said and re.search(words, words_said), said.err
    assert not project.project().store.versions(("parcels", "review"))
    assert "parcels/filtered_dataset" not in project.look().unfresh


def test_a_sample_of_dropped_records_says_what_was_dropped_wrongly(project: Tiny) -> None:
    project.edit(
        "pipeline.yaml", "filtering: [refusal, exact_duplicate]", "filtering: [{name: source_cap, by: answer, most: 6}]"
    )
    made = filtered(project)
    dropped = {record for record, row in decisions(made).items() if row["verdict"] == "drop"}
    command(project, "review", "export", "parcels", "--out", sample_path(project), "--sample", "4", "--dropped", "5")
    rows = rows_of(project, "sample.csv")
    assert len(rows) == 9 and sum(row["record_id"] in dropped for row in rows) == 5
    # Who reads cannot tell them apart.
    assert not {"reason", "standing", "rule"} & set(rows[0])
    assert (
        command(project, "review", "import", "parcels", str(hand_back(project, "a.csv", judged(rows, {}, "anna")))).code
        == 0
    )
    notes = filtered(project).record["notes"]["review"]
    assert notes["dropped"] == {"reviewed": 5, "accepted": 5}
    assert notes["critical"]["all"]["records"] == 4


@pytest.mark.parametrize("action", ["mask", "drop"])
def test_personal_data_is_shown_to_nobody(tmp_path: Path, action: str) -> None:
    project = project_with(tmp_path / "private", "review: {}\n")
    address = "anna.smith@mail-post.net"
    lines = [
        {**row, "text": f"{row['text']} {address}" if at % 2 else row["text"]}
        for at, row in enumerate(tiny.rows("s", 90))
    ]
    project.write_lines("seeds.jsonl", lines)
    project.write_lines("answers.jsonl", [{**row, "said": row["colour"]} for row in lines])
    project.edit("pipeline.yaml", "[refusal, exact_duplicate]", f"[{{name: pii, action: {action}}}]")
    dropped = filtered(project).record["notes"]["funnel"].get("dropped: pii", 0)
    found = [row for row in decisions(filtered(project)).values() if row["verdict"] == "drop"]
    assert len(found) > 5 if action == "drop" else not found and not dropped
    out = ("--out", sample_path(project), "--sample", "90", "--dropped", "90")
    assert command(project, "review", "export", "parcels", *out).code == 0
    assert address not in Path(sample_path(project)).read_text("utf-8-sig")
    rows = rows_of(project, "sample.csv")
    assert any("[EMAIL" in row["question"] for row in rows) == (action == "mask") and len(rows) > 10
    back = hand_back(project, "a.csv", judged(rows, {0: "reject"}, "anna"))
    assert command(project, "review", "import", "parcels", str(back)).code == 0
    # What is rejected stands there unmasked afterwards; a second reviewer's file of the same sample still fits.
    filtered(project)
    second = hand_back(project, "b.csv", judged(rows, {}, "ben"))
    assert command(project, "review", "import", "parcels", str(second)).code == 0


def test_label_studio_there_and_back(project: Tiny) -> None:
    out = project.folder / "tasks.json"
    said = command(
        project, "review", "export", "parcels", "--out", str(out), "--format", "label_studio", "--sample", "6"
    )
    assert said.code == 0, said
    tasks = json.loads(out.read_text("utf-8"))
    assert len(tasks) == 6 and tasks[0]["data"]["critical_errors"] == [
        {"value": "wrong colour"},
        {"value": "no colour"},
    ]
    config = (project.folder / "tasks.xml").read_text("utf-8")
    names = re.findall(r'value="\$(\w+)"', config)
    assert set(names) <= set(tasks[0]["data"]) and {"question", "answer", "critical_errors"} <= set(names)

    def choice(name: str, value: str) -> dict[str, Any]:
        return {"from_name": name, "to_name": "answer", "type": "choices", "value": {"choices": [value]}}

    def annotation(who: Any, *results: dict[str, Any], cancelled: bool = False) -> dict[str, Any]:
        return {"completed_by": who, "result": list(results), "was_cancelled": cancelled}

    comment = {"from_name": "comment", "to_name": "answer", "type": "textarea", "value": {"text": ["not red"]}}
    bad = [choice("verdict", "reject"), choice("critical_error", "wrong colour"), comment]
    exported = [
        {
            "id": 1,
            "data": tasks[0]["data"],
            "annotations": [annotation(1, *bad), annotation({"id": 2, "email": "b@x.org"}, *bad)],
        },
        *(
            {"id": at, "data": task["data"], "annotations": [annotation(1, choice("verdict", "accept"))]}
            for at, task in enumerate(tasks[1:5], 2)
        ),
        {
            "id": 6,
            "data": tasks[5]["data"],
            "annotations": [annotation(1, choice("verdict", "accept"), cancelled=True)],
        },
    ]
    back = project.folder / "export.json"
    back.write_text(json.dumps(exported), "utf-8")
    said = command(project, "review", "import", "parcels", str(back))
    assert said.code == 0 and "6 verdicts, 1 rows without one" in said.out, said
    found = head_version(project.project().store, ("parcels", "review"))
    assert found is not None
    rows = found[0].table("verdict").to_pylist()
    assert Counter(row["reviewer"] for row in rows) == {"annotator_1": 5, "annotator_2": 1, "nobody": 1}
    assert {row["comment"] for row in rows if row["verdict"] == "reject"} == {"not red"}
    assert "x.org" not in json.dumps(rows)


def test_without_review_in_the_file_verdicts_are_not_asked_for(tmp_path: Path) -> None:
    made = project_with(tmp_path / "plain", "")
    said = command(made, "review", "export", "parcels", "--out", sample_path(made))
    assert said.code == 1 and "Add `review: {}`" in " ".join(said.err.split())
    assert "review" not in filtered(made).record["config"]


def test_data_from_another_pipeline_is_reviewed_there(project: Tiny) -> None:
    other = "kind: pipeline\nname: second\nsource: parcels\ndata_from: parcels\n"
    other += "student: {base: 'preset:nano', vocabulary: 300}\n"
    path = project.folder / "assets_config" / "second.yaml"
    path.write_text(other, "utf-8")
    assert command(project, "review", "export", "second", "--out", sample_path(project), "--sample", "3").code == 0
    built = project.project()
    materialize(built.nodes["second", "initial_student"], built.store, Services(built.state))
    with pytest.raises(GateError, match="parcels/filtered_dataset"):
        materialize(built.nodes["second", "student_checkpoint"], built.store, Services(built.state))
    path.write_text(other + "review: {}\n", "utf-8")
    with pytest.raises(ConfigError, match="belongs to pipeline 'parcels'"):
        project.project()
