"""`kill -9` at numbered fault points of real stages: the next run finishes, and the versions are those of an
undisturbed one.

Every point of the stages that do not train, and of the training ones every kind of point in both processes.
"""

import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from pipeline import tiny
from pipeline.tiny import Tiny

pytestmark = [pytest.mark.kill, pytest.mark.needs_torch]

TRAINING = ("teacher_model", "student_checkpoint", "control_checkpoint")
CHEAP = tuple(name for name in tiny.ALL if name not in TRAINING)


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
    else:  # its training process was killed: the stage says so
        assert status == 1 and "SIGKILL" in said and "Run again" in said and "Traceback" not in said, (order, said)
    seen = project.versions()
    assert {name: seen[name] for name in above} == above, order
    assert seen.get(mine, expected[mine]) == expected[mine], order
    assert project.sealed()[mine] in ([], [expected[mine]]), order

    status, said = driver.run(project, select=[stage])
    assert status == 0, (order, said)
    assert project.versions() == expected, order
    assert project.sealed()[mine] == [expected[mine]] and project.states()[mine].fresh, order
    assert not project.drafts(), order
    assert not list((project.settings.state / "work").rglob("*.*")), order
    if stage == "deployed_student":
        assert project.champions() == [expected[mine]], order
    shutil.rmtree(project.folder)


def spread(count: int, wanted: int) -> list[int]:
    """At most so many numbers from 1 to count, evenly, both ends among them."""
    if count <= wanted:
        return list(range(1, count + 1))
    return sorted({1 + round(step * (count - 1) / (wanted - 1)) for step in range(wanted)})


def kinds(names: list[str]) -> list[int]:
    """The number of the last point of every name."""
    return sorted({name: number for number, name in enumerate(names, 1)}.values())


def test_every_kind_of_point_is_passed(stages) -> None:
    seen = Counter(name.split(".")[0] for names in stages.points.values() for name in names)
    assert {"table", "json", "file", "seal", "run", "journal"} <= set(seen)
    assert all(stages.points[stage] for stage in tiny.ALL)
    assert all(stages.child_points[stage] for stage in TRAINING)
    assert not any(stages.child_points[stage] for stage in CHEAP)


@pytest.mark.parametrize("stage", ["seed_set", "teacher_outputs", "filtered_dataset", "deployed_student"])
def test_killed_at_a_few_points(driver, stages, stage: str, tmp_path: Path) -> None:
    for at in spread(len(stages.points[stage]), 3):
        killed_and_run_again(driver, stages, stage, tmp_path / str(at), at=at)


@pytest.mark.slow
@pytest.mark.parametrize("stage", CHEAP)
def test_killed_at_every_point(driver, stages, stage: str, tmp_path: Path) -> None:
    for at in range(1, len(stages.points[stage]) + 1):
        killed_and_run_again(driver, stages, stage, tmp_path / str(at), at=at)


@pytest.mark.slow
@pytest.mark.parametrize("stage", TRAINING)
def test_a_training_stage_killed_at_every_kind_of_point(driver, stages, stage: str, tmp_path: Path) -> None:
    for at in kinds(stages.points[stage]):
        killed_and_run_again(driver, stages, stage, tmp_path / f"own-{at}", at=at)
    for at in kinds(stages.child_points[stage]):
        killed_and_run_again(driver, stages, stage, tmp_path / f"child-{at}", child_at=at)


@pytest.mark.slow
def test_killed_once_in_every_stage_through_dagster(driver, stages, tmp_path: Path) -> None:
    project = stages.before["seed_set"].copy(tmp_path / "project")
    for stage in tiny.ALL:
        status, said = driver.run(project, dagster=True, before_seal=stage)
        assert status == -signal.SIGKILL, (stage, said)
        assert f"parcels/{stage}" not in project.versions()
    status, said = driver.run(project, dagster=True)
    assert status == 0, said
    _undisturbed(project, stages)


def _undisturbed(project: Tiny, stages) -> None:
    assert project.versions() == stages.versions
    assert all(len(versions) == 1 for versions in project.sealed().values())
    assert not project.unfresh() and not project.drafts()
    assert project.champions() == [stages.versions["parcels/deployed_student"]]
