"""The guards of conftest.py: what must run in CI does not slip away as a skip, and no test reaches the network."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

# Each test starts an interpreter of its own.
pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parent

SKIPPING = """
import pytest

@pytest.mark.browser
def test_skips_itself():
    pytest.skip("no browser")

@pytest.mark.browser
@pytest.mark.skipif(True, reason="never")
def test_skipped_by_mark():
    pass

@pytest.fixture
def server():
    pytest.skip("no server")

@pytest.mark.postgres
def test_skipped_in_setup(server):
    pass

@pytest.mark.real_data
def test_needs_data(real_data):
    pass

@pytest.mark.browser
@pytest.mark.xfail(reason="known", strict=True)
def test_expected_to_fail():
    assert False

def test_ordinary():
    pytest.skip("may be skipped")
"""

WHOLE_MODULE = """
import pytest
pytestmark = pytest.mark.browser
pytest.importorskip("a_package_that_is_not_there")
def test_something():
    pass
"""

REACHING = """
import socket

def test_reaches_out():
    socket.create_connection(("192.0.2.1", 80), timeout=1)

def test_stays():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()
"""


def outcome(folder: Path, code: str, *arguments: str, **environment: str) -> dict[str, int]:
    """Counts of a pytest run over one file, in a folder with this project's conftest and configuration."""
    (folder / "tests").mkdir(exist_ok=True)
    shutil.copy(TESTS / "conftest.py", folder / "tests")
    shutil.copy(TESTS.parent / "pyproject.toml", folder)
    (folder / "tests" / "test_it.py").write_text(code)
    inherited = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=inherited | {"DISTILL_REAL_DATA": str(folder / "none")} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    counts: Counter[str] = Counter()
    for count, word in re.findall(r"(\d+) (passed|failed|skipped|xfailed|error)", done.stdout.strip().splitlines()[-1]):
        # What fails while it is set up or collected is called an error.
        counts["failed" if word == "error" else word] += int(count)
    return dict(counts)


def test_skips_are_allowed_on_a_developers_machine(tmp_path: Path) -> None:
    assert outcome(tmp_path, SKIPPING) == {"skipped": 5, "xfailed": 1}


@pytest.mark.parametrize("arguments", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_what_must_run_fails_in_ci(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert outcome(tmp_path, SKIPPING, *arguments, CI="true") == {"failed": 3, "skipped": 2, "xfailed": 1}


def test_real_data_that_is_present_must_be_read_in_ci(tmp_path: Path) -> None:
    code = SKIPPING.replace("def test_needs_data(real_data):\n    pass", "def test_needs_data():\n    pytest.skip('x')")
    found = outcome(tmp_path, code, CI="true", DISTILL_REAL_DATA=str(tmp_path))
    assert found == {"failed": 4, "skipped": 1, "xfailed": 1}


def test_a_skipped_module_fails_in_ci(tmp_path: Path) -> None:
    assert outcome(tmp_path, WHOLE_MODULE) == {"skipped": 1}
    assert outcome(tmp_path, WHOLE_MODULE, CI="true") == {"failed": 1}


def test_no_test_reaches_the_network(tmp_path: Path) -> None:
    assert outcome(tmp_path, REACHING) == {"failed": 1, "passed": 1}
