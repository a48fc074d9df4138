"""The real command through Dagster: killed, it takes its training process along; when that is killed, it says so."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline.tiny import Tiny

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.needs_torch]

STEPS = "steps: 6,"


def start(project: Tiny) -> subprocess.Popen[str]:
    """`distill-dagster run` of the student alone."""
    command = [sys.executable, "-m", "distill_dagster.cli", "run", "parcels", "--select", "student_checkpoint"]
    state = project.settings.state
    return subprocess.Popen(
        command,
        env={
            **os.environ,
            **project.environment,
            "DAGSTER_HOME": str(state / "dagster"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{state}/mlflow/mlflow.db",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def trainer_of(parent: int) -> int:
    """The training process of a command, once it has logged a step."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
                above = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if above == parent and b"distill_dagster.training.process" in words:
                work = Path(os.fsdecode(words[-2])).parent
                if (work / "metrics.jsonl").exists() and (work / "metrics.jsonl").stat().st_size:
                    return int(place.name)
        time.sleep(0.05)
    raise AssertionError("no training process came up")


def gone(pid: int) -> bool:
    """Whether a process has ended; an unreaped one has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.fixture
def long_training(parcels: Tiny) -> Tiny:
    """The student is to be trained anew, for a while."""
    path = parcels.folder / "assets_config" / "pipeline.yaml"
    text = path.read_text("utf-8")
    head, tail = text.split("training: ")
    changed = tail.replace(STEPS, "steps: 60000, checkpoint_every: 20,", 1)
    path.write_text(f"{head}training: {changed}", "utf-8")
    return parcels


def test_a_killed_command_takes_its_training_process_along(long_training: Tiny) -> None:
    before = long_training.sealed()
    parent = start(long_training)
    child = trainer_of(parent.pid)
    assert os.getpgid(child) == child  # its own group
    parent.kill()
    parent.communicate(timeout=20)
    until = time.monotonic() + 10
    while not gone(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert gone(child), "an orphan keeps training"
    assert long_training.sealed() == before

    path = long_training.folder / "assets_config" / "pipeline.yaml"
    path.write_text(path.read_text("utf-8").replace("steps: 60000, checkpoint_every: 20,", STEPS), "utf-8")
    assert long_training.run(["student_checkpoint"])["student_checkpoint"].reused
    assert not long_training.unfresh()


def test_a_killed_training_process_is_reported(long_training: Tiny) -> None:
    before = long_training.sealed()
    parent = start(long_training)
    os.kill(trainer_of(parent.pid), signal.SIGKILL)
    said, _ = parent.communicate(timeout=60)
    assert parent.returncode == 1
    assert "signal SIGKILL" in said and "resumes from its last checkpoint" in said and "Traceback" not in said
    assert long_training.sealed() == before and not long_training.drafts()
