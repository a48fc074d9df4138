"""The gate on critical errors in Dagster: it stops the run, and the page of the data set says why."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from pipeline import tiny
from places import at_home, run

from distill_dagster.errors import DistillError

pytestmark = pytest.mark.needs_torch  # MLflow is not there without it

TEACHER = "kind: teacher\nname: nano_teacher\nbackend: recorded\nprompt_style: short\n"
TEACHER += "recorded: {path: seeds.jsonl, input: text, answer: colour}\n"
DATA = ("seed_set", "eval_set", "prompt_set", "teacher_model", "teacher_outputs", "filtered_dataset")


@pytest.mark.slow
def test_a_data_set_that_nobody_read_stops_the_run(tmp_path: Path) -> None:
    project = tiny.parcels(tmp_path / "parcels")
    (project.folder / "assets_config" / "teacher.yaml").write_text(TEACHER, "utf-8")
    project.append("pipeline.yaml", "review: {critical_errors: {colour: [wrong colour]}, max_upper_bound: 0.2}\n")
    with pytest.raises(DistillError, match="filtered_dataset: the blocking check 'critical_errors' has not passed"):
        run(project, [*DATA, "initial_student", "student_checkpoint"])
    assert not project.project().store.versions(("parcels", "student_checkpoint"))
    with at_home(project), dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["parcels", "filtered_dataset"]))
        assert event is not None and event.asset_materialization is not None
        shown = event.asset_materialization.metadata
    assert shown["critical errors, upper 95 % bound"].value == 1.0
    assert "must lie below 0.2" in str(shown["review gate"].value)
