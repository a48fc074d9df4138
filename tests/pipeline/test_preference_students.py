"""Students that learn from preference pairs, from YAML: the pairs are the pipeline's own, and made once."""

import json
from pathlib import Path

import pytest

from distill_dagster.config.check import check
from distill_dagster.errors import TrainingError
from distill_dagster.lineage.engine import Made
from distill_dagster.lineage.trace import trace
from distill_dagster.storage.store import key_text
from distill_dagster.teachers.base import Request
from pipeline import rule_teacher
from pipeline.kinds import table, teacher, written
from pipeline.rule_teacher import RuleTeacher
from pipeline.tiny import RECIPE, Tiny

__all__ = ["teacher"]  # a fixture

pytestmark = pytest.mark.needs_torch

KNOWLEDGE = "knowledge: [labeling, {name: feedback, samples: 2}]\n"
OBJECTIVE = "objective: {sft: 0.2, dpo: {weight: 1.0, beta: 0.3}}"
SECOND = f"""\
kind: pipeline
source: parcels
name: second
data_from: parcels
student: {{base: "preset:nano", vocabulary: 300}}
training: {RECIPE[:-1]}, objective: {{simpo: {{weight: 1.0, gamma: 0.5}}}}}}
control: {{multiples: [1]}}
"""
FIRST = ["seed_set", "eval_set", "prompt_set", "teacher_model", "teacher_outputs", "filtered_dataset"]


def project(folder: Path, knowledge: str = KNOWLEDGE, objective: str = OBJECTIVE) -> Tiny:
    made = written(folder, knowledge)
    made.edit("pipeline.yaml", f"training: {RECIPE}", f"training: {RECIPE[:-1]}, {objective}}}")
    return made


def losses(made: Made, name: str) -> list[dict]:
    path = made.version.place / "runs" / made.run / f"{name}_metrics.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_a_student_learns_from_pairs_of_its_own_pipeline(tmp_path: Path, teacher: RuleTeacher) -> None:
    one = project(tmp_path)
    (tmp_path / "assets_config" / "second.yaml").write_text(SECOND, "utf-8")
    assert check(one.settings.config) == []
    made = one.run([*FIRST, "preference_pairs", "initial_student", "student_checkpoint", "control_checkpoint"])
    student, pairs = made["student_checkpoint"], table(made["preference_pairs"], "preference")
    parents = {parent.role: key_text(parent.key) for parent in student.node.parents}
    assert parents["pairs"] == "parcels/preference_pairs"
    assert student.record["notes"]["counts"] == {"pairs": len(pairs), "tasks": {"colour": len(pairs)}}
    assert student.record["notes"]["training"]["examples"] == 2 * len(pairs) > 40
    first = losses(student, "student")[0]
    assert set(first) >= {"dpo", "sft", "dpo_margin", "dpo_accuracy", "dpo_chosen_log_prob", "dpo_rejected_log_prob"}
    assert first["dpo"] == pytest.approx(0.6931, abs=1e-3)
    # Gold has no worse answers: the control learns from its labels.
    assert set(losses(made["control_checkpoint"], "control_1x")[0]) & {"dpo", "sft"} == {"sft"}

    # A second student of the same pairs asks nobody anything.
    asked = len(teacher.asked)
    again = Tiny(one.folder, "second").run(["preference_pairs", "initial_student", "student_checkpoint"])
    assert len(teacher.asked) == asked and again["preference_pairs"].reused
    assert losses(again["student_checkpoint"], "student")[0]["simpo_margin"] is not None
    assert again["student_checkpoint"].version.version != student.version.version

    # A seed leads to the students that learned from its pairs; nothing of the examples was read.
    store, seed = one.project().store, pairs[0]["seed_record_id"]
    told = {entry["artifact"]: entry["through"] for found in trace(store, seed) for entry in found.students}
    assert told == {
        "parcels/student_checkpoint": "its preference pairs",
        "second/student_checkpoint": "its preference pairs",
    }
    gold = next(row for row in table(made["seed_set"], "seed") if row["part"] == "gold")["record_id"]
    told = {entry["artifact"] for found in trace(store, gold) for entry in found.students}
    assert told == {"parcels/control_checkpoint"}

    # What makes no other pairs makes no other student: examples alone are nothing to it.
    one.edit("pipeline.yaml", "near_duplicate]", "near_duplicate, {name: length, max_chars: 90}]")
    remade = one.run([*FIRST, "preference_pairs", "student_checkpoint"])
    assert not remade["filtered_dataset"].reused
    if remade["preference_pairs"].version.version == made["preference_pairs"].version.version:
        assert remade["student_checkpoint"].reused


def test_pairs_that_nobody_makes_are_reported_with_file_and_key(tmp_path: Path) -> None:
    one = project(tmp_path, "knowledge: [labeling, {name: feedback, method: critique}]\n")
    (tmp_path / "assets_config" / "second.yaml").write_text(SECOND, "utf-8")
    found = {(problem.file.name, problem.key): problem for problem in check(one.settings.config)}
    own = found["pipeline.yaml", "training.objective.dpo"]
    assert "no kind in `knowledge` compares answers" in own.reason and "feedback" in own.hint and own.line
    other = found["second.yaml", "training.objective.simpo"]
    assert "`knowledge` of pipeline 'parcels'" in other.reason
    assert len(found) == 2
    one.edit("pipeline.yaml", ", method: critique", "")
    assert check(one.settings.config) == []
    one.edit("pipeline.yaml", "max_length: 512", "max_length: 512, prompt_loss_weight: 0.5")
    (problem,) = check(one.settings.config)
    assert problem.key == "training.objective.dpo" and "prompt_loss_weight" in problem.reason
    one.edit("pipeline.yaml", ", prompt_loss_weight: 0.5", "")
    one.append("teacher.yaml", f"fit: {{recipe: {RECIPE[:-1]}, objective: {{simpo: 1.0}}}}}}\n")
    (problem,) = check(one.settings.config)
    assert problem.key == "fit.recipe.objective.simpo" and "no preference pairs" in problem.reason


def test_no_pair_at_all_is_a_clear_error(tmp_path: Path, teacher: RuleTeacher) -> None:
    def never_sure(request: Request) -> str:
        if rule_teacher.style(request) == "compare":
            return json.dumps({"mark": rule_teacher.mark(request), "winner": "tie"})
        return rule_teacher.answer(request)

    teacher.rule = never_sure
    one = project(tmp_path)
    one.run([*FIRST, "preference_pairs", "initial_student"])
    with pytest.raises(TrainingError, match="parcels/student_checkpoint: .*no preference pair.*preference_pairs"):
        one.run(["student_checkpoint"])
