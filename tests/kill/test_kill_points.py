"""`kill -9` at numbered fault points of real stages: the next run finishes, and the versions are those of an
undisturbed one.

Every point of every stage, in the stage's own process and in its training process; a few of each for every day.
"""

import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from pipeline import tiny

# Dozens of runs in one test: the usual limit is too short on a busy machine.
pytestmark = [pytest.mark.kill, pytest.mark.needs_torch, pytest.mark.timeout(1200)]

TRAINING = ("teacher_model", "student_checkpoint", "control_checkpoint")


def killed_and_run_again(driver, stages, stage: str, folder: Path, **order: int) -> None:
    """Kill a stage, look at what readers see, run again, and look closely."""
    project = stages.before[stage].copy(folder)
    expected = {
        name: version
        for name, version in stages.versions.items()
        if tiny.ALL.index(name.split("/")[1]) <= tiny.ALL.index(stage)
    }
    mine = f"parcels/{stage}"
    above = {name: version for name, version in expected.items() if name != mine}
    status, said = driver.run(project, select=[stage], **order)
    if "at" in order:
        assert status == -signal.SIGKILL, (order, said)
    elif order["child_at"] == len(stages.child_points[stage]):  # nothing is left to do once its result is there
        assert status == 0, (order, said)
    else:  # its training process was killed: the stage says so
        assert status == 1 and "SIGKILL" in said and "Run again" in said and "Traceback" not in said, (order, said)
    seen = project.look()
    assert {name: seen.versions[name] for name in above} == above, order
    assert seen.versions.get(mine, expected[mine]) == expected[mine], order
    assert seen.sealed[mine] in ([], [expected[mine]]), order

    status, said = driver.run(project, select=[stage])
    assert status == 0, (order, said)
    seen = project.look()
    assert seen.versions == expected, order
    assert seen.sealed[mine] == [expected[mine]] and mine not in seen.unfresh, order
    assert not project.drafts(), order
    assert not list((project.settings.state / "work").rglob("*.*")), order
    if stage == "deployed_student":
        assert seen.champions == [expected[mine]], order
    shutil.rmtree(project.folder)


def spread(count: int, wanted: int) -> list[int]:
    """At most so many numbers from 1 to count, evenly, both ends among them."""
    if count <= wanted:
        return list(range(1, count + 1))
    return sorted({1 + round(step * (count - 1) / (wanted - 1)) for step in range(wanted)})


@pytest.mark.slow
def test_every_kind_of_point_is_passed(stages) -> None:
    seen = Counter(name.split(".")[0] for names in stages.points.values() for name in names)
    assert {"table", "json", "file", "seal", "run", "journal"} <= set(seen)
    assert all(stages.points[stage] for stage in tiny.ALL)
    assert [stage for stage in tiny.ALL if stages.child_points[stage]] == list(TRAINING)


@pytest.mark.parametrize("stage", ["seed_set", "teacher_outputs", "student_checkpoint", "deployed_student"])
def test_killed_at_a_few_points(driver, stages, stage: str, tmp_path: Path) -> None:
    for at in spread(len(stages.points[stage]), 3):
        killed_and_run_again(driver, stages, stage, tmp_path / str(at), at=at)
    for at in spread(len(stages.child_points[stage]), 2):
        killed_and_run_again(driver, stages, stage, tmp_path / f"child-{at}", child_at=at)


@pytest.mark.slow
@pytest.mark.parametrize("stage", tiny.ALL)
def test_killed_at_every_point(driver, stages, stage: str, tmp_path: Path, record_property) -> None:
    points = range(1, len(stages.points[stage]) + 1)
    for at in points:
        killed_and_run_again(driver, stages, stage, tmp_path / str(at), at=at)
    record_property("kills", len(points))


@pytest.mark.slow
@pytest.mark.parametrize("stage", TRAINING)
def test_its_training_process_killed_at_every_point(driver, stages, stage: str, tmp_path: Path, record_property):
    points = range(1, len(stages.child_points[stage]) + 1)
    for at in points:
        killed_and_run_again(driver, stages, stage, tmp_path / str(at), child_at=at)
    record_property("kills", len(points))


@pytest.mark.slow
def test_killed_once_in_every_stage_through_dagster(driver, stages, tmp_path: Path, record_property) -> None:
    """One whole run after another, each killed in the next stage or in that stage's training process."""
    project = stages.before["seed_set"].copy(tmp_path / "project")
    (at,) = {stages.child_points[stage].index("model.rename") + 1 for stage in TRAINING}
    left, trainers, kills = list(tiny.ALL), set(), 0
    while left:
        status, said = driver.run(project, dagster=True, before_seal=left, child_at=at)
        if status == 1:
            assert "SIGKILL" in said and "Run again" in said and "Traceback" not in said, said
            trainers |= {stage for stage in TRAINING if f"parcels/{stage}: the training process" in said}
            kills += 1
            status, said = driver.run(project, dagster=True, before_seal=left)
        assert status == -signal.SIGKILL, said
        stage = said.split("killed ")[-1].strip()
        left.remove(stage)
        kills += 1
        assert f"parcels/{stage}" not in project.versions()
    assert trainers == set(TRAINING)
    status, said = driver.run(project, dagster=True)
    assert status == 0, said
    seen = project.look()
    assert seen.versions == stages.versions
    assert all(len(versions) == 1 for versions in seen.sealed.values())
    assert not seen.unfresh and not project.drafts()
    assert seen.champions == [stages.versions["parcels/deployed_student"]]
    record_property("kills", kills)
