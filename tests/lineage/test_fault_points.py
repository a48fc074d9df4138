"""Killed at each write, fsync, rename and commit in turn: the next run finishes with an undisturbed one's versions."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from distill_dagster.lineage.audit import audit_alias
from distill_dagster.lineage.engine import head_version
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.lineage.status import status
from distill_dagster.storage.store import Store
from lineage import toy

TESTS = Path(__file__).resolve().parent.parent
SAMPLE = 8

# Hundreds of runs in one test: the usual limit is too short on a busy machine.
pytestmark = [pytest.mark.kill, pytest.mark.timeout(1200)]


Run = Callable[..., int]


@pytest.fixture(scope="module")
def worker() -> Iterator[Run]:
    """`worker(folder, **environment)`: the whole toy chain in a process of its own; gives its exit status."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, "-m", "lineage.toy"]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment) as server:
        answers = server.stdout
        assert server.stdin is not None and answers is not None

        def run(folder: Path, **environment: str) -> int:
            print(json.dumps({"folder": str(folder), "environment": environment}), file=server.stdin, flush=True)
            return int(answers.readline())

        yield run
        server.stdin.close()


def versions(store: Store) -> dict[tuple[str, str], list[str]]:
    return {key: store.versions(key) for key in toy.graph()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, worker: Run) -> tuple[dict[tuple[str, str], list[str]], list[str]]:
    """Versions of an undisturbed run, and the names of the fault points it passed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert worker(folder, DISTILL_FAULT_LOG=str(folder / "points.txt")) == 0
    lines = [line.split() for line in (folder / "points.txt").read_text().splitlines()]
    assert [int(number) for number, *_ in lines] == list(range(1, len(lines) + 1))
    found = versions(Store(folder / "store"))
    assert all(len(sealed) == 1 for sealed in found.values())
    return found, [name for *_, name in lines]


def killed_and_run_again(worker: Run, folder: Path, at: int, expected: dict[tuple[str, str], list[str]]) -> None:
    """Kill at one fault point, look at what readers see, run again, and look closely."""
    folder.mkdir()
    assert worker(folder, DISTILL_FAULT_AT=str(at)) == -signal.SIGKILL, at
    store = Store(folder / "store")
    for key, sealed in versions(store).items():
        assert sealed in ([], expected[key]), at
        for version in sealed:
            assert store.open(key, version).local().is_dir()
        found = head_version(store, key)  # a head never points at what is not there
        assert found is None or found[0].run(found[1])["id"] == found[1]
    assert Ledger(store).problems() == []

    assert worker(folder) == 0, at
    assert versions(store) == expected, at
    assert {one.state for one in status(toy.graph(), store)} == {"fresh"}
    assert Ledger(store).problems() == [] and len(list(Ledger(store).entries())) == 1
    result = audit_alias(store, toy.OWNER, "champion")
    assert result.exit_code == 0, (at, result)
    artifacts = Path(store.base.path) / toy.OWNER
    assert not list(artifacts.rglob(".draft-*")), at
    # A torn file may stay beside what is read, hidden; the work folders are gone.
    assert all(path.name.startswith(".") for path in Path(store.base.path).rglob("*.tmp"))
    assert not list((folder / "work").rglob("*.*"))
    assert worker(folder, DISTILL_FAULT_LOG=str(folder / "third.txt")) == 0
    assert not (folder / "third.txt").exists(), "a third run writes nothing"


def test_every_kind_of_write_is_a_fault_point(undisturbed) -> None:
    names = Counter(undisturbed[1])
    assert len(undisturbed[1]) >= 60
    kinds = {"seal.fsync", "seal.rename", "seal.renamed", "run.rename", "run.commit", "table.seed", "table.decision"}
    assert kinds | {"file.write", "file.fsync", "file.rename", "file.done", "json.model/config.json"} <= set(names)
    # A manifest, a run record, an action and a head for each of three nodes, and a ledger entry.
    assert names["file.write"] == names["file.fsync"] == names["file.rename"] == names["file.done"] == 3 * 4 + 1


def test_killed_at_some_fault_points(worker: Run, undisturbed, tmp_path: Path) -> None:
    """A sample for every day, over all nodes; the slow test takes every point."""
    expected, names = undisturbed
    for number in range(SAMPLE):
        at = 1 + number * (len(names) - 1) // (SAMPLE - 1)
        killed_and_run_again(worker, tmp_path / str(at), at, expected)


@pytest.mark.slow
def test_killed_at_every_fault_point(worker: Run, undisturbed, tmp_path: Path, record_property) -> None:
    expected, names = undisturbed
    for at in range(1, len(names) + 1):
        killed_and_run_again(worker, tmp_path / str(at), at, expected)
    record_property("kills", len(names))
