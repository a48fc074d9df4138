"""Several training seeds: paired, all reported, the median of D_val served."""

import hashlib
import json
import math
from pathlib import Path

import pytest

from distill_dagster.lineage.engine import Made
from distill_dagster.stages import seeds
from pipeline.tiny import Tiny

pytestmark = [pytest.mark.needs_torch, pytest.mark.slow]


def _weights(made: Made, folder: str) -> str:
    return hashlib.sha256(made.version.local(f"{folder}/model.safetensors").read_bytes()).hexdigest()


def _files(made: Made) -> set[str]:
    return {name for name in made.version.manifest["files"] if name.endswith(".safetensors")}


def test_the_median_is_the_lower_of_two_and_never_the_best_of_several() -> None:
    assert seeds.median([0.3]) == 0
    assert seeds.median([0.9, 0.1]) == 1
    assert seeds.median([0.9, 0.1, 0.5]) == 2
    assert seeds.median([0.5, 0.5, 0.5]) == 1
    assert seeds.median([0.4, 0.1, 0.3, 0.2]) == 3


def test_three_seeds_through_the_whole_pipeline(finance: Tiny) -> None:
    before = finance.versions()
    finance.edit("pipeline.yaml", "floor_over_chance: -1.0", "floor_over_chance: -1.0, delta: 1.0")
    finance.edit("pipeline.yaml", "evaluation: {", "evaluation: {seeds: 3, ")
    made = finance.run()
    assert {name for name, one in made.items() if not one.reused} == {
        "initial_student",
        "student_checkpoint",
        "control_checkpoint",
        "eval_report",
        "deployed_student",
    }
    start, student, control = made["initial_student"], made["student_checkpoint"], made["control_checkpoint"]
    # Every seed has initial weights of its own, and student and control of a seed share them.
    assert len({_weights(start, folder) for folder in ("model", "model_s1", "model_s2")}) == 3
    said = json.loads(student.version.local("seeds.json").read_text("utf-8"))
    served, scores = said["served"], said["validation"]
    assert len(scores) == 3 and said["items"] == 8 * 3 and sorted(scores)[1] == scores[served]
    others = {f"model_s{index}/model.safetensors" for index in range(3) if index != served}
    assert _files(student) == {"model/model.safetensors", *others}
    assert len({_weights(student, Path(name).parent.name) for name in _files(student)}) == 3
    assert _files(control) == {f"model_1x{end}/model.safetensors" for end in ("", "_s1", "_s2")}

    report = made["eval_report"]
    rows = report.version.table("item_score").to_pylist()
    by_arm = {arm: {row["seed"] for row in rows if row["arm"] == arm} for arm in {row["arm"] for row in rows}}
    assert by_arm["student"] == by_arm["control_1"] == {0, 1, 2} and by_arm["teacher"] == {0}
    content = json.loads(report.version.local("report.json").read_text("utf-8"))
    assert (content["seeds"], content["interval_over"], content["served_seed"]) == (3, "items and seeds", served)
    for task in content["tasks"]:
        own = [row["score"] for row in rows if row["arm"] == "student" and row["task"] == task["name"]]
        assert task["arms"]["student"]["value"] == pytest.approx(math.fsum(own) / len(own), abs=1e-6)

    # What is served is what the gates judged: the median's very bytes, on its own scores.
    assert _weights(made["deployed_student"], "model") == _weights(student, "model")
    floor = made["deployed_student"].record["notes"]["gates"][0]
    for name in (task["name"] for task in content["tasks"]):
        own = [r["score"] for r in rows if (r["arm"], r["task"], r["seed"]) == ("student", name, served)]
        assert floor[name]["score"] == pytest.approx(math.fsum(own) / len(own))
    assert not finance.unfresh()

    # One seed again: everything is there already, byte for byte.
    finance.edit("pipeline.yaml", "evaluation: {seeds: 3, ", "evaluation: {")
    finance.run()
    assert finance.versions() == before


def test_a_seed_of_several_is_the_run_of_that_seed_alone(finance: Tiny) -> None:
    finance.edit("pipeline.yaml", "floor_over_chance: -1.0", "floor_over_chance: -1.0, delta: 1.0")
    finance.edit("pipeline.yaml", "evaluation: {", "evaluation: {seeds: 2, ")
    both = finance.run()
    finance.edit("pipeline.yaml", "evaluation: {seeds: 2, ", "evaluation: {")
    finance.edit("pipeline.yaml", "training: {", "training: {seed: 1, ")
    alone = finance.run()
    served = json.loads(both["student_checkpoint"].version.local("seeds.json").read_text("utf-8"))["served"]
    assert _weights(both["control_checkpoint"], "model_1x_s1") == _weights(alone["control_checkpoint"], "model_1x")
    mine = "model" if served == 1 else "model_s1"
    assert _weights(both["student_checkpoint"], mine) == _weights(alone["student_checkpoint"], "model")
