"""Recorded answers through the stages: a small file of ours, and PaLM's published answers to SVAMP."""

from __future__ import annotations

import json
import shutil

import pytest
from pyarrow import parquet

from distill_dagster.errors import ConfigError, GateError, StoreError
from distill_dagster.lineage.engine import Services
from distill_dagster.settings import Settings
from distill_dagster.stages.estimate import estimate
from distill_dagster.stages.project import Project
from pipeline import tiny

NAMES = ("seed_set", "eval_set", "prompt_set", "teacher_model", "teacher_outputs", "filtered_dataset")

TEACHER = """\
kind: teacher
name: nano_teacher
backend: recorded
prompt_style: short
recorded: {path: answers.jsonl, input: text, answer: said}
"""


@pytest.fixture
def parcels(tmp_path):
    """Parcels whose teacher is a file, in another order than the seeds and with no answer to every fifth."""
    made = tiny.parcels(tmp_path / "parcels")
    (made.folder / "assets_config" / "teacher.yaml").write_text(TEACHER, "utf-8")
    rows = [{"text": row["text"], "said": row["colour"]} for row in made.lines("seeds.jsonl")]
    made.write_lines("answers.jsonl", [row for at, row in enumerate(rows) if at % 5][::-1])
    return made


def answers(made):
    """What each seed text was answered, by the version's own tables."""
    table = made["teacher_outputs"].version.table("candidate").to_pylist()
    return {row["messages"][0]["parts"][0]["text"]: row["answer"] or row["failure"] for row in table}


def test_a_file_teaches(parcels):
    made = parcels.run(NAMES)
    seeds = {row["text"]: row["colour"] for row in parcels.lines("seeds.jsonl")}
    recorded = {row["text"] for row in parcels.lines("answers.jsonl")}
    found = answers(made)
    assert found == {text: seeds[text] if text in recorded else "not_recorded" for text in found}
    assert 0 < sum(answer == "not_recorded" for answer in found.values()) < len(found)
    record = json.loads(made["teacher_model"].version.local("teacher.json").read_text("utf-8"))
    assert record["fitted"] is False and len(record["files"]) == 1
    version, run = made["teacher_outputs"].version, made["teacher_outputs"].run
    calls = parquet.read_table(version.place / "runs" / run / "call.parquet").to_pylist()
    assert {row["revision"] for row in calls} == {record["revision"]}
    assert {row["served_model"] for row in calls} == {"nano_teacher"}
    assert all(one.reused for one in parcels.run(NAMES).values())


def test_nobody_is_asked_about_seeds_that_leak(parcels):
    held, lines = parcels.lines("test.jsonl"), parcels.lines("seeds.jsonl")
    parcels.write_lines("seeds.jsonl", [{**lines[0], "text": held[2]["text"].upper()}, *lines[1:]])
    with pytest.raises(GateError, match=r"1 by folded.* row 3 of \S*test.jsonl and row 1 of \S*seeds.jsonl"):
        parcels.run(NAMES)
    assert "parcels/teacher_outputs" not in parcels.versions()
    parcels.write_lines("test.jsonl", held[3:])  # mended in the other file, whose version in the store is the old one
    assert parcels.run(["seed_set", "prompt_set", "teacher_model", "teacher_outputs"])


def test_a_changed_file_is_another_teacher(parcels):
    first = parcels.run(NAMES)
    lines = parcels.lines("answers.jsonl")
    changed = next(text for text, answer in answers(first).items() if answer != "not_recorded")
    wrong = {"red": "green", "green": "red"}
    parcels.write_lines(
        "answers.jsonl", [{**row, "said": wrong[row["said"]]} if row["text"] == changed else row for row in lines]
    )
    with pytest.raises(StoreError, match="Materialize parcels/teacher_model first"):
        # The seeds are asked anew, with the teacher as it was.
        parcels.edit("teacher.yaml", "prompt_style: short", "prompt_style: full")
        parcels.run(["teacher_outputs"])
    parcels.edit("teacher.yaml", "prompt_style: full", "prompt_style: short")
    again = parcels.run(NAMES)
    assert not again["teacher_model"].reused
    before, after = answers(first), answers(again)
    assert {text for text in before if before[text] != after[text]} == {changed}


def test_a_train_answer_is_not_given_to_a_test_item_of_the_same_id(parcels):
    """Both files count from 1, and answers were recorded for one of them."""
    for file in ("seeds.jsonl", "test.jsonl"):
        parcels.write_lines(file, [{**row, "id": at} for at, row in enumerate(parcels.lines(file), 1)])
    parcels.write_lines("answers.jsonl", [{"id": row["id"], "said": "red"} for row in parcels.lines("seeds.jsonl")])
    parcels.edit("teacher.yaml", "input: text", "id: id")
    source = parcels.folder / "assets_config" / "source.yaml"
    source.write_text(source.read_text("utf-8").replace("answer: colour", "answer: colour, id: id"), "utf-8")
    made = parcels.run(NAMES)
    assert set(answers(made).values()) == {"red"}
    with pytest.raises(ConfigError, match="unique over `seeds` and `evaluation`"):
        estimate(parcels.project(), "parcels")
    node = parcels.project().nodes["parcels", "eval_report"]
    read = next(parent.parts for parent in node.parents if parent.role == "seeds")
    assert read == {"seed": ("teacher", "gold", "unlabeled")}


@pytest.mark.real_data
def test_palm_teaches_svamp(repo, real_data, tmp_path, monkeypatch):
    """The shipped example, on its first 60 problems: rationales and labels stand where the file has them."""
    monkeypatch.setenv("DISTILL_REAL_DATA", str(real_data))
    shutil.copytree(repo / "examples" / "real_data" / "svamp", tmp_path / "config")
    project = Project(Settings(tmp_path / "config", str(tmp_path / "store"), tmp_path / "state"), limit=60)
    nodes = project.select("svamp", NAMES)
    made = {one.node.key[1]: one for one in project.run(nodes, Services(project.state))}
    path = real_data / "general" / "svamp_palm_rationale.train.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    palm = {" ".join(row["input"].split()): row["teacher"][0] for row in rows}
    candidates = made["teacher_outputs"].version.table("candidate").to_pylist()
    assert len(candidates) == 60
    for row in candidates:
        said = palm[" ".join(row["messages"][0]["parts"][0]["text"].split())]
        assert row["answer"] == said.get("label") and row["rationale"] == said.get("rationale")
        assert row["failure"] == (None if said.get("label") else "not_recorded")
    assert {row["status"] for row in candidates} == {"ok", "failed"}
    funnel = made["filtered_dataset"].record["notes"]["funnel"]
    assert funnel["failed"] == sum(row["status"] == "failed" for row in candidates)
    assert funnel["kept"] == 60 - funnel["failed"] - sum(v for k, v in funnel.items() if k.startswith("dropped"))
