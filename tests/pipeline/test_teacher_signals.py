"""Students that learn from a teacher's probabilities, from YAML: captured once, read by every student of the data."""

import json
from pathlib import Path

import pytest

from distill_dagster.lineage.engine import Made
from distill_dagster.storage.store import key_text
from pipeline import tiny
from pipeline.tiny import RECIPE, Tiny

pytestmark = pytest.mark.needs_torch

TEACHER = "kind: teacher\nname: nano_teacher\nmodel: domain:teacher\nprompt_style: short\n"
OBJECTIVE = "objective: {sft: 0.5, divergence: {weight: 0.5, kind: KIND, temperature: 2, k: 8}}"
STUDENT = f"""\
student: {{base: "domain:student_base"}}
training: {RECIPE[:-1]}, {OBJECTIVE}}}
control: {{multiples: [1]}}
"""
SECOND = "kind: pipeline\nsource: finance\nname: second\ndata_from: finance\n" + STUDENT.replace("KIND", "jsd")
TRAINED = ["teacher_model", "teacher_outputs", "filtered_dataset", "teacher_signals", "initial_student"]


@pytest.fixture
def project(tmp_path: Path) -> Tiny:
    """Two students of one teacher's data, by different divergences."""
    made = tiny.finance(tmp_path)
    config = tmp_path / "assets_config"
    own = "kind: pipeline\nsource: finance\nteacher: nano_teacher\nfiltering: [refusal]\n"
    (config / "teacher.yaml").write_text(TEACHER, "utf-8")
    (config / "pipeline.yaml").write_text(own + STUDENT.replace("KIND", "forward"), "utf-8")
    (config / "second.yaml").write_text(SECOND, "utf-8")
    return made


def losses(made: Made, name: str) -> list[dict]:
    path = made.version.place / "runs" / made.run / f"{name}_metrics.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_students_learn_from_signals_that_are_captured_once(project: Tiny) -> None:
    made = project.run([*tiny.SOURCE, *TRAINED, "student_checkpoint", "control_checkpoint"])
    signals, examples = made["teacher_signals"], made["filtered_dataset"].version.table("example")
    counts = signals.record["notes"]["counts"]
    assert counts["scored"] == counts["records"] == len(set(examples["record_id"].to_pylist()))
    assert "capture" in signals.record["notes"]["signals"]["break_even"]
    assert {"sft", "divergence", "loss"} <= set(losses(made["student_checkpoint"], "student")[0])
    # Gold alone has no teacher.
    assert set(losses(made["control_checkpoint"], "control_1x")[0]) & {"sft", "divergence"} == {"sft"}
    parents = {parent.role: key_text(parent.key) for parent in made["student_checkpoint"].node.parents}
    assert parents["signals"] == "finance/teacher_signals" and parents["teacher"] == "finance/teacher_model"

    second = Tiny(project.folder, "second")
    again = second.run([*TRAINED, "student_checkpoint"])
    assert {name for name, one in again.items() if one.reused} == set(TRAINED) - {"initial_student"}
    assert again["teacher_signals"].version.version == signals.version.version
    assert again["student_checkpoint"].version.version != made["student_checkpoint"].version.version

    # More gold: only the new records are scored.
    project.edit("source.yaml", "gold: 12", "gold: 14")
    more = project.run([*tiny.SOURCE, *TRAINED])
    changed = more["teacher_signals"].record["notes"]["counts"]
    assert changed["scored"] == changed["records"] - changed["reused"] > 0
    assert changed["reused"] >= 0.9 * counts["records"]

    # The artifact belongs to the graph only where a recipe asks for it.
    from distill_dagster.assets.build import project_definitions

    assert "teacher_signals" in {
        key.path[-1] for key in project_definitions(project.project()).resolve_all_asset_keys()
    }
    for file in ("pipeline.yaml", "second.yaml"):
        text = (project.folder / "assets_config" / file).read_text("utf-8")
        live = text.replace("k: 8", "k: 0, signals: live")
        (project.folder / "assets_config" / file).write_text(live, "utf-8")
    keys = {key[1] for key in project.project().nodes}
    assert "teacher_signals" not in keys
    taught = project.run(["student_checkpoint"])["student_checkpoint"]
    assert {parent.role for parent in taught.node.parents} == {"data", "start", "teacher"}
    assert losses(taught, "student")[0]["divergence"] > 0


def test_a_student_of_other_words_is_refused_before_it_trains(project: Tiny) -> None:
    from distill_dagster.errors import TrainingError

    project.edit("pipeline.yaml", 'base: "domain:student_base"', 'base: "preset:nano", vocabulary: 300')
    project.run([*tiny.SOURCE, *TRAINED])
    with pytest.raises(TrainingError, match="another tokenizer"):
        project.run(["student_checkpoint"])
