"""What a recipe says about the run itself, from YAML: early stop, packing, several batches a step."""

import json
import subprocess
from pathlib import Path

import pytest

from distill_dagster.lineage.engine import Made
from distill_dagster.storage.store import key_text
from pipeline import tiny
from pipeline.tiny import RECIPE, Tiny

pytestmark = pytest.mark.needs_torch

BEFORE = [*tiny.SOURCE, *tiny.DATA, "initial_student"]
STOP = "early_stop: {every: 2, patience: 1, min_delta: 5.0, share: 0.5}"


def losses(made: Made, name: str) -> list[dict]:
    path = made.version.place / "runs" / made.run / f"{name}_metrics.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def with_recipe(project: Tiny, more: str) -> Tiny:
    project.edit("pipeline.yaml", f"training: {RECIPE}", f"training: {RECIPE[:-1]}, {more}}}")
    return project


@pytest.mark.slow
def test_a_student_stops_by_its_validation_records(tmp_path: Path, monkeypatch) -> None:
    from distill_dagster.stages import training

    looked: dict[str, list] = {}
    usual = training.run

    def run(job, **options):
        looked[options["name"]] = options["validation"]
        return usual(job, **options)

    project = tiny.finance(tmp_path)
    plain = project.run([*BEFORE, "student_checkpoint"])
    with_recipe(project, f"accumulate: 2, packing: true, {STOP}")
    monkeypatch.setattr(training, "run", run)
    made = project.run([*BEFORE, "student_checkpoint", "control_checkpoint"])
    # What was there before is not made again for a field that it does not read.
    assert all(made[name].reused for name in BEFORE)
    assert made["student_checkpoint"].version.version != plain["student_checkpoint"].version.version
    summary = made["student_checkpoint"].record["notes"]["training"]
    # Nothing falls by 5 nats in two steps: the second look ends it, with the weights of the first.
    assert (summary["steps"], summary["best_step"], summary["stopped_early"]) == (4, 2, True)
    assert "1 looks without a lower one" in summary["stop_reason"] and summary["packed"] is True
    rows = losses(made["student_checkpoint"], "student")
    assert [row["step"] for row in rows if "validation_loss" in row] == [2, 4]
    assert made["control_checkpoint"].record["notes"]["training_1x"]["best_step"] == 2
    # A share of D_val, the same for both, and nothing of D_test.
    parts = {row["record_id"]: row["part"] for row in made["eval_set"].version.table("seed").to_pylist()}
    ids = [row["seed_record_id"] for row in looked["student"]]
    assert ids and {parts[one] for one in ids} == {"validation"}
    assert len(ids) < sum(part == "validation" for part in parts.values())
    assert looked["control_1x"] == looked["student"]
    reads = {parent.role: parent for parent in made["student_checkpoint"].node.parents}
    assert key_text(reads["evals"].key) == "finance/eval_set" and reads["evals"].parts == {"seed": ("validation",)}


def test_no_validation_records_is_an_error(tmp_path: Path) -> None:
    from distill_dagster.errors import TrainingError

    project = with_recipe(tiny.parcels(tmp_path), STOP)
    project.run(BEFORE)
    with pytest.raises(TrainingError, match="0 with an answer times share 0.5 leave none.*split.validation"):
        project.run(["student_checkpoint"])


def test_a_fitted_teacher_has_no_validation_records(tmp_path: Path) -> None:
    from distill_dagster.errors import ConfigError

    project = tiny.parcels(tmp_path)
    project.edit("teacher.yaml", f"recipe: {RECIPE}", f"recipe: {RECIPE[:-1]}, {STOP}}}")
    with pytest.raises(ConfigError, match="teacher.yaml.*fitted on D_T alone"):
        project.project()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_from_yaml(tmp_path: Path) -> None:
    project = tiny.parcels(tmp_path)
    project.run(BEFORE)
    with_recipe(project, "accumulate: 2, processes: 2")
    made = project.run(["student_checkpoint"], start=subprocess.Popen)["student_checkpoint"]
    shared = made.record["notes"]["training"]
    assert (shared["processes"], shared["steps"]) == (2, 6)
    # The same step by one process: the same losses, but for rounding.
    project.edit("pipeline.yaml", ", processes: 2", "")
    alone = project.run(["student_checkpoint"])["student_checkpoint"]
    assert not alone.reused
    for mine, theirs in zip(losses(made, "student"), losses(alone, "student"), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4) and mine["tokens"] == theirs["tokens"]
