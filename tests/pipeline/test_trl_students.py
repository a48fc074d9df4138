"""Students that learn through TRL's trainers, from YAML; and what `check` refuses of such a recipe."""

from pathlib import Path

import pytest

from distill_dagster.assets.teacher_model import loss_pictures
from distill_dagster.config.check import check
from distill_dagster.errors import ModelError
from pipeline import test_own_samples as own_samples
from pipeline import tiny
from pipeline.kinds import table, teacher, written
from pipeline.rule_teacher import RuleTeacher
from pipeline.test_preference_students import FIRST, KNOWLEDGE, losses
from pipeline.tiny import RECIPE, Tiny

__all__ = ["teacher"]  # a fixture

pytestmark = pytest.mark.needs_torch

OBJECTIVE = "trainer: trl, objective: {dpo: {weight: 1.0, beta: 0.3}}"


def project(folder: Path, more: str = OBJECTIVE) -> Tiny:
    made = written(folder, KNOWLEDGE)
    made.edit("pipeline.yaml", f"training: {RECIPE}", f"training: {RECIPE[:-1]}, {more}}}")
    return made


@pytest.mark.slow
def test_a_student_learns_from_pairs_through_trl(
    tmp_path: Path, teacher: RuleTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = project(tmp_path)
    assert check(one.settings.config) == []
    made = one.run([*FIRST, "preference_pairs", "initial_student"])
    # Where the extra is missing the stage says so before a process starts.
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ModelError, match=r"parcels/student_checkpoint: .*needs the package trl.*\[trl\]"):
            one.run(["student_checkpoint"])
    made |= one.run(["student_checkpoint", "control_checkpoint"])
    student, pairs = made["student_checkpoint"], table(made["preference_pairs"], "preference")
    notes = student.record["notes"]["training"]
    assert notes["trainer"].startswith("trl ") and notes["examples"] == 2 * len(pairs) and notes["steps"] == 6
    rows = losses(student, "student")
    assert [row["step"] for row in rows] == [1, 2, 4, 6] and rows[0]["dpo"] == pytest.approx(0.6931, abs=1e-3)
    assert rows[-1]["dpo"] < rows[0]["dpo"] and rows[-1]["dpo_margin"] > 0
    assert {"loss", "loss_student", "training"} <= set(loss_pictures(student))
    files = {path.suffix for path in student.version.place.rglob("*") if path.is_file()}
    assert ".safetensors" in files and not files & {".bin", ".pt", ".pth", ".pkl", ".pickle"}
    # Gold has no pairs: the control learns by the built-in trainer, and only through it.
    assert "trainer" not in made["control_checkpoint"].record["notes"].get("training", {})
    assert "sft" in losses(made["control_checkpoint"], "control_1x")[0]

    # The built-in trainer starts where TRL's does, and goes the same way.
    one.edit("pipeline.yaml", "trainer: trl, ", "")
    again = one.run(["student_checkpoint"])["student_checkpoint"]
    assert not again.reused and again.version.version != student.version.version
    for ours, theirs in zip(losses(again, "student"), rows, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-3)


@pytest.mark.slow
def test_verdicts_reward_samples_through_trl(tmp_path: Path) -> None:
    grpo = "{grpo: {prompts: 4, group: 4, equal_groups: keep}}, trainer: trl"
    made = own_samples.project(tmp_path, paid=own_samples.objective(grpo) + f"student: {{base: {own_samples.START}}}\n")
    student = made.run([*tiny.SOURCE, *own_samples.MADE])["student_checkpoint"]
    rows, notes = own_samples.metrics(student), student.record["notes"]["training"]
    assert notes["samples"] == 4 * 16 and notes["trainer"].startswith("trl ")
    assert {"grpo", "reward", "right", "entropy", "answer_length", "grad_norm"} <= set(rows[-1])
    assert {"loss_student", "reward_student"} <= set(loss_pictures(student))


@pytest.mark.parametrize(
    ("more", "key", "reason", "hint"),
    [
        ("trainer: trl", "training.trainer", "used for `dpo` and `grpo`, and this is `sft`", "leave out"),
        ("trainer: trl, objective: {simpo: 1.0}", "training.trainer", "this is `simpo`", "leave out"),
        ("trainer: trl, objective: {dpo: 1.0, simpo: 0.1}", "training.objective.simpo", "beside 'dpo'", "built-in"),
        (
            "trainer: trl, objective: {dpo: {weight: 1.0, label_smoothing: 0.1}}",
            "training.objective.dpo.label_smoothing",
            "does not smooth",
            "Set it to 0",
        ),
        (f"{OBJECTIVE}, processes: 2, accumulate: 2", "training.processes", "one process", "built-in"),
        (f"{OBJECTIVE}, linear_probe: {{}}", "training.linear_probe", "no head to fit", "Leave it out"),
        (f"{OBJECTIVE}, packing: true", "training.packing", "pad their batches", "built-in"),
        (f"{OBJECTIVE}, adapter: {{kind: qlora}}", "training.adapter.kind", "4 bits", "kind: lora"),
        ("trainer: other", "training.trainer", "other", ""),
    ],
)
def test_what_trl_cannot_do_is_refused_with_file_and_key(
    tmp_path: Path, more: str, key: str, reason: str, hint: str
) -> None:
    found = check(project(tmp_path, more).settings.config)
    (problem,) = [one for one in found if one.key == key]
    assert problem.file.name == "pipeline.yaml" and problem.line
    assert reason in problem.reason and hint in problem.hint


@pytest.mark.parametrize(
    ("params", "key", "reason"),
    [
        ("prompts: 4", "objective.grpo.equal_groups", "keeps groups of equal rewards"),
        ("equal_groups: keep, buffer: 20", "objective.grpo.buffer", "keeps no samples"),
        ("equal_groups: keep, max_age: 2", "objective.grpo.max_age", "keeps no samples"),
        ("equal_groups: keep, weight: 0.5", "objective.grpo.weight", "weighs nothing"),
        ("equal_groups: keep, prompts: 3, group: 3, every: 2", "objective.grpo.every", "9 samples"),
    ],
)
def test_what_trl_cannot_do_of_grpo(tmp_path: Path, params: str, key: str, reason: str) -> None:
    made = tiny.finance(tmp_path)
    terms = f"trainer: trl, objective: {{grpo: {{{params}}}}}"
    made.edit("pipeline.yaml", f"training: {RECIPE}", f"training: {RECIPE[:-1]}, {terms}}}")
    (problem,) = [one for one in check(made.settings.config) if one.key == f"training.{key}"]
    assert reason in problem.reason and problem.hint


def test_a_sound_recipe_and_more_than_one_batch_a_step(tmp_path: Path) -> None:
    assert check(project(tmp_path / "pairs", f"{OBJECTIVE}, accumulate: 2").settings.config) == []
    made = tiny.finance(tmp_path / "samples")
    terms = "trainer: trl, accumulate: 2, objective: {grpo: {equal_groups: keep}}"
    made.edit("pipeline.yaml", f"training: {RECIPE}", f"training: {RECIPE[:-1]}, {terms}}}")
    assert "training.accumulate" in {one.key for one in check(made.settings.config)}
