"""The kernels of the sparse loss, by Triton's interpreter on a CPU; tests/training/test_gpu.py compiles them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from training import fused_cases as cases

pytestmark = [
    pytest.mark.needs_torch,
    pytest.mark.skipif(not find_spec("triton"), reason="no triton: torch's builds for a CPU come without it"),
]

#: Triton reads it when it is imported, so the other tests here run in a process that begins with it.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
#: numpy warns of the logarithm of 0, which a row without a rest has.
quiet = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
inside = pytest.mark.skipif(not INTERPRETED, reason="run by test_by_the_interpreter, with TRITON_INTERPRET=1")


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_by_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__))]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


@inside
@quiet
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", cases.CASES + cases.ODD, ids=str)
def test_values_and_gradients(case: cases.Case, dtype: str) -> None:
    cases.compare(case, "cpu", dtype)


@inside
def test_logits_alone() -> None:
    cases.logits_alone("cpu")


@inside
@quiet
def test_extremes() -> None:
    cases.extremes("cpu")


@inside
def test_kernels_are_used_where_they_should() -> None:
    import torch

    from distill_dagster.training.losses import sparse

    assert {"cuda"} >= sparse.KERNELS_ON and sparse._kernels(torch.zeros(1, 1)) is None
    assert sparse._loaded(torch.device("cpu")) is not None
