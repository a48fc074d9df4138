"""The process that forks runs to be killed, and projects as they were before each stage."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pipeline import tiny
from pipeline.finished import finance, finished_finance, finished_parcels, parcels
from pipeline.tiny import Tiny

__all__ = ["finance", "finished_finance", "finished_parcels", "parcels"]

TESTS = Path(__file__).resolve().parent.parent


class Driver:
    """Talks with `driver.py`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "kill" / "driver.py")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "COLUMNS": "200"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, project: Tiny, **order: Any) -> int:
        """Start a run; its process id."""
        assert self.process.stdin is not None
        whole = {"name": project.name, "folder": str(project.folder), "log": str(project.folder / "log.txt"), **order}
        self.process.stdin.write(json.dumps(whole) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> int:
        """The next number that the driver prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the driver has ended"
        return int(line)

    def run(self, project: Tiny, **order: Any) -> tuple[int, str]:
        """Run to its end; exit status and what was printed."""
        self.start(project, **order)
        status = self.answer()
        return status, (project.folder / "log.txt").read_text("utf-8", "replace")


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    """The forking process."""
    made = Driver()
    yield made
    assert made.process.stdin is not None
    assert made.process.stdout is not None
    made.process.stdin.close()
    made.process.wait(20)
    made.process.stdout.close()


@dataclass
class Stages:
    """The project that reads files as it was before each stage, and what each stage passes.

    Attributes:
        before: A project by stage: everything above is made, the stage is not.
        points: Names of the fault points that the stage's own process passes, in order.
        child_points: Those that its training process passes.
        versions: Versions of an undisturbed run.
    """

    before: dict[str, Tiny] = field(default_factory=dict)
    points: dict[str, list[str]] = field(default_factory=dict)
    child_points: dict[str, list[str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="session")
def stages(driver: Driver, finished_parcels: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Each stage run once, undisturbed."""
    base = tmp_path_factory.mktemp("stages")
    project = tiny.parcels(base / "running")
    found = Stages(versions=finished_parcels.versions())
    for stage in tiny.ALL:
        found.before[stage] = project.copy(base / stage)
        logs = {name: base / f"{stage}-{name}.txt" for name in ("points", "child_points")}
        status, said = driver.run(project, select=[stage], **{name: str(path) for name, path in logs.items()})
        assert status == 0, said
        for name, path in logs.items():
            getattr(found, name)[stage] = _names(path)
    assert project.versions() == found.versions
    return found


def _names(path: Path) -> list[str]:
    lines = [line.split() for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    assert [int(number) for number, *_ in lines] == list(range(1, len(lines) + 1))
    return [name for *_, name in lines]
