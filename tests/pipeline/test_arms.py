"""Further arms beside the control: what they learn from, and that the report has them."""

import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from distill_dagster.config.check import check
from distill_dagster.errors import TrainingError
from distill_dagster.lineage.engine import Services, head_version
from distill_dagster.records.messages import text_of
from distill_dagster.stages import examination
from distill_dagster.stages.arms.all_gold import Arm as AllGold
from distill_dagster.stages.arms.base import Material
from distill_dagster.stages.arms.self_training import Arm as SelfTraining
from distill_dagster.stages.context import prompts_by
from pipeline.tiny import Tiny

pytestmark = [pytest.mark.needs_torch, pytest.mark.slow]

INPUTS = {"seeds": "seed_set", "prompts": "prompt_set", "control": "control_checkpoint"}


def test_arms_from_one_line_of_yaml(finance: Tiny) -> None:
    before = finance.versions()
    finance.edit("pipeline.yaml", "floor_over_chance: -1.0", "floor_over_chance: -1.0, delta: 1.0")
    finance.edit("pipeline.yaml", "training: {steps: 6", "training: {steps: 60")  # after six it answers nothing
    finance.edit("pipeline.yaml", "{multiples: [1]}", "{multiples: [1], arms: [all_gold, self_training]}")
    made = finance.run(["control_checkpoint"])["control_checkpoint"]
    said = json.loads(made.version.local("control.json").read_text("utf-8"))
    assert said == {"measured": True, "multiples": [1], "arms": ["all_gold", "self_training"]}
    assert made.record["notes"]["arms"]["all_gold"] == {"examples": 3 * (12 + 24)}
    assert 3 * 12 < made.record["notes"]["arms"]["self_training"]["examples"] <= 3 * (12 + 24)
    report = finance.run()["eval_report"]
    content = json.loads(report.version.local("report.json").read_text("utf-8"))
    arms = ["linear_teacher", "teacher", "linear_gold", "control_1", "all_gold", "self_training", "student"]
    assert all(set(task["arms"]) == set(arms) for task in content["tasks"])
    assert Counter(row["arm"] for row in report.version.table("item_score").to_pylist()) == dict.fromkeys(arms, 48)
    page = next((report.version.place / "runs").rglob("report.html")).read_text("utf-8")
    assert "Gold for all of D_U" in page and "Self-training on D_U" in page
    assert not finance.unfresh()
    finance.edit("pipeline.yaml", ", arms: [all_gold, self_training]", "")
    finance.edit("pipeline.yaml", "training: {steps: 60", "training: {steps: 6")
    finance.run()
    assert finance.versions() == before


def test_arms_are_checked(finance: Tiny) -> None:
    finance.edit("pipeline.yaml", "control: {multiples: [1]}", "control: {multiples: [1], arms: [self_trainig]}")
    (problem,) = check(finance.settings.config)
    assert "unknown arm 'self_trainig'" in problem.reason and "'self_training'" in str(problem)
    finance.edit("pipeline.yaml", "{multiples: [1], arms: [self_trainig]}", "{multiples: [2], arms: [self_training]}")
    (problem,) = check(finance.settings.config)
    assert "add 1 to `multiples`" in problem.reason


def test_each_arm_learns_from_what_it_says(finance: Tiny) -> None:
    finance.edit("pipeline.yaml", "training: {steps: 6", "training: {steps: 60")
    finance.run(["control_checkpoint"])
    project = finance.project()
    pipeline = project.pipelines["finance"]
    heads = {role: head_version(project.store, ("finance", name)) for role, name in INPUTS.items()}
    inputs = {role: head[0] for role, head in heads.items() if head is not None}
    unlabeled = inputs["seeds"].table("seed", filters=[("part", "==", "unlabeled")]).to_pylist()
    job: Any = SimpleNamespace(inputs=inputs, progress=lambda *said: None)
    control = inputs["control"].local("model_1x")
    material = Material(job, pipeline, [], control)
    ceiling = {row["seed_record_id"]: text_of(row["messages"][-1:]) for row in AllGold()(material)}
    assert ceiling == {row["record_id"]: row["answer"] for row in unlabeled}
    answers, _ = examination.ask_student(control, "control", pipeline, prompts_by(inputs["prompts"]), unlabeled)
    said = {row["seed_record_id"]: text_of(row["messages"][-1:]) for row in SelfTraining()(material)}
    own = {row["record_id"]: answer.strip() for row, answer in zip(unlabeled, answers, strict=True)}
    assert said == {key: answer for key, answer in own.items() if answer} != {}


def test_no_gold_is_no_ceiling(parcels: Tiny) -> None:
    parcels.write_lines("seeds.jsonl", [{**line, "colour": None} for line in parcels.lines("seeds.jsonl")])
    project = parcels.project()
    seeds = project.run(project.select("parcels", ["seed_set,prompt_set"]), Services(project.state))
    inputs = {"seeds": seeds[0].version, "prompts": seeds[1].version}
    job: Any = SimpleNamespace(inputs=inputs, progress=lambda *said: None)
    with pytest.raises(TrainingError, match="no record of D_U has a gold answer"):
        AllGold()(Material(job, project.pipelines["parcels"], [], parcels.folder))
