"""The built-in preference losses give TRL's numbers, where TRL is installed in an environment of its own."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PYTHON = Path(os.environ.get("DISTILL_TRL_PYTHON") or BENCHMARKS / ".venv-trl" / "bin" / "python")

pytestmark = [
    pytest.mark.needs_torch,
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="no TRL: `make bench-preference` installs it, or DISTILL_TRL_PYTHON"
    ),
]


@pytest.fixture
def benchmark() -> ModuleType:
    """The benchmark, as a module."""
    spec = importlib.util.spec_from_file_location("benchmark_preference", BENCHMARKS / "preference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_values_rewards_and_gradients_are_those_of_trl(benchmark: ModuleType, tmp_path: Path) -> None:
    result = benchmark.compare(str(PYTHON), tmp_path)
    assert set(result["cases"]) == set(benchmark.CASES)
    for name, case in result["cases"].items():
        assert max(case["differences"].values()) < benchmark.TOLERANCE, (name, case)
