"""Projects that were run once for the whole session; a test that changes something works on a copy.

A `conftest.py` imports the fixtures; workers of a parallel session share the runs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline import tiny
from pipeline.tiny import Tiny


def _shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Tiny]) -> Tiny:
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"finished-{name}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder).run()
            (folder / "done").touch()
    return Tiny(folder, name)


@pytest.fixture(scope="session")
def finished_finance(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The authored project after a whole run; read only."""
    return _shared(tmp_path_factory, "finance", tiny.finance)


@pytest.fixture(scope="session")
def finished_parcels(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The project that reads files, after a whole run; read only."""
    return _shared(tmp_path_factory, "parcels", tiny.parcels)


@pytest.fixture
def finance(finished_finance: Tiny, tmp_path: Path) -> Tiny:
    """A copy of the authored project after a whole run."""
    return finished_finance.copy(tmp_path / "finance")


@pytest.fixture
def parcels(finished_parcels: Tiny, tmp_path: Path) -> Tiny:
    """A copy of the project that reads files, after a whole run."""
    return finished_parcels.copy(tmp_path / "parcels")
