"""What every test may rely on: no network but loopback, no telemetry, one thread, no state outside `tmp_path`.

Under `CI=true` a test that must run there (browser, PostgreSQL, Ray, real data that is present) fails instead of being
skipped.
"""

import importlib.util
import ipaddress
import os
import re
import shutil
import socket
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPO = Path(__file__).resolve().parent.parent

#: Real data sets, which are not part of the repository.
REAL_DATA = Path(os.environ.get("DISTILL_REAL_DATA", REPO.parent / "shared" / "data"))

#: Packages that the other Python versions are tested without (`make test-pythons`).
HEAVY = ("torch", "transformers", "datasets", "mlflow")
MISSING = frozenset(name for name in HEAVY if importlib.util.find_spec(name) is None)

MUST_RUN = ("browser", "postgres", "ray", "real_data")
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")

os.environ.update(
    {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MPLBACKEND": "Agg",
    }
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A developer's own servers and homes must not be written to by a test.
for name in (
    "DAGSTER_HOME",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "OPENAI_API_KEY",
    "DISTILL_ASSETS_CONFIG",
    "DISTILL_JOURNAL",
):
    os.environ.pop(name, None)

# The machine's load must not decide whether a property holds, and CI must see the same examples twice.
settings.register_profile(
    "default", deadline=None, derandomize=IN_CI, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("default")


def _is_loopback(address: object) -> bool:
    if not isinstance(address, tuple):  # a Unix socket
        return True
    host = str(address[0])
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return host in ("localhost", "")


@pytest.fixture(autouse=True, scope="session")
def loopback_only():
    """Refuse connections of the test process to anything but this machine."""
    patch = pytest.MonkeyPatch()

    def guarded(original):
        def connect(sock, address):
            if sock.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address):
                raise AssertionError(f"a test tried to reach {address!r}; tests talk to this machine only")
            return original(sock, address)

        return connect

    patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets; skips where this machine has none (set DISTILL_REAL_DATA)."""
    if not REAL_DATA.is_dir():
        pytest.skip("no real data on this machine; set DISTILL_REAL_DATA to its folder")
    return REAL_DATA


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium that Playwright can drive; skips where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on this machine; install the package chromium")


@cache
def _gpu() -> bool:
    """Whether there is a GPU that torch can use; asked only where a test wants one."""
    if "torch" in MISSING:
        return False
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if any(item.get_closest_marker(name) for name in MUST_RUN):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("needs_torch") and MISSING:
            item.add_marker(pytest.mark.skip(reason=f"not installed here: {', '.join(sorted(MISSING))}"))
        if item.get_closest_marker("gpu") and not _gpu():
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU here"))


def _must_run(markers) -> list[str]:
    present = [name for name in MUST_RUN if name in markers]
    return [name for name in present if name != "real_data" or REAL_DATA.is_dir()]


def _missing_heavy(error: BaseException | None) -> str | None:
    """Name of the heavy package whose absence is behind an error, if that is what it is."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in MISSING:
            return error.name
        error = error.__cause__ or error.__context__
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    place = (str(item.path), item.location[1] or 0)
    if report.failed and call.excinfo is not None and (name := _missing_heavy(call.excinfo.value)):
        report.outcome = "skipped"
        report.longrepr = (*place, f"Skipped: {name} is not installed here")
    elif report.skipped and IN_CI and not hasattr(report, "wasxfail"):
        if must := _must_run({mark.name for mark in item.iter_markers()}):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            report.outcome = "failed"
            report.longrepr = f"a {must[0]} test must run in CI, but was skipped: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if report.failed and report.call is not None and report.call.excinfo is not None:
        if name := _missing_heavy(report.call.excinfo.value):
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), 0, f"Skipped: {name} is not installed here")
    elif report.skipped and IN_CI and collector.path.is_file():
        source = collector.path.read_text(encoding="utf-8")
        if must := _must_run(set(re.findall(r"mark\.(\w+)", source))):
            report.outcome = "failed"
            report.longrepr = (
                f"{must[0]} tests must run in CI, but {collector.path.name} was skipped: {report.longrepr}"
            )
    return report


def pytest_terminal_summary(terminalreporter):
    """Say how many of the tests that need something of the machine were really run."""
    ran: Counter[str] = Counter()
    kills = 0
    for report in terminalreporter.stats.get("passed", []):
        ran.update(name for name in (*MUST_RUN, "kill") if name in report.keywords)
        kills += sum(value for name, value in report.user_properties if name == "kills")
    if kills:
        terminalreporter.write_line(f"killed and run again: {kills} times")
    if ran:
        terminalreporter.write_line("run: " + ", ".join(f"{count} {name}" for name, count in sorted(ran.items())))
