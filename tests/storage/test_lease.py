"""Leases: one holder, named while it lives, gone when it dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill_dagster.errors import LeaseError, StoreError
from distill_dagster.storage.lease import lease

HOLD = """
import sys, time
from pathlib import Path
from distill_dagster.storage.lease import lease
with lease(Path(sys.argv[1]), "finance/seed_set"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds finance/seed_set."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_a_second_process_is_told_who_holds_it(tmp_path: Path, holder) -> None:
    message = rf"held by process {holder.pid} on \S+ since \d{{4}}-"
    with pytest.raises(LeaseError, match=message) as caught, lease(tmp_path, "finance/seed_set"):
        pytest.fail("two holders")
    assert caught.value.place == "finance/seed_set" and caught.value.next_step
    with lease(tmp_path, "finance/eval_set"):
        pass


def test_a_killed_holders_lease_is_free_at_once(tmp_path: Path, holder) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    started = time.monotonic()
    with lease(tmp_path, "finance/seed_set"):
        assert time.monotonic() - started < 1


def test_it_is_released_on_errors_and_can_be_waited_for(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lease(tmp_path, "a/b"):
        raise KeyError
    with lease(tmp_path, "a/b"), pytest.raises(LeaseError, match=f"process {os.getpid()}"):
        started = time.monotonic()
        with lease(tmp_path, "a/b", wait=0.3):
            pytest.fail("two holders")
    assert time.monotonic() - started >= 0.3


def test_who_waits_is_told_of_the_holder(tmp_path: Path, holder) -> None:
    told: list[str] = []

    def end(held: str) -> None:
        told.append(held)
        holder.kill()

    with lease(tmp_path, "finance/seed_set", wait=30.0, waiting=end):
        assert [held.split(" on ")[0] for held in told] == [f"held by process {holder.pid}"]


def test_an_earlier_holder_is_not_named(tmp_path: Path) -> None:
    with lease(tmp_path, "a/b"):
        pass
    assert not list(tmp_path.glob("*.json"))


def test_names_do_not_run_together(tmp_path: Path) -> None:
    with lease(tmp_path, "a/b__c"), lease(tmp_path, "a__b/c"), lease(tmp_path, "a%2Fb/c"):
        pass


def test_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="a file stands"), lease(tmp_path / "file" / "leases", "a/b"):
        pass
