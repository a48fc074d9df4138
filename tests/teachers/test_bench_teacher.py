"""The benchmark of the teacher path runs, small, and says what it promises."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_benchmark_runs_small(repo):
    command = [sys.executable, str(repo / "benchmarks" / "teacher.py"), "--anyway", "--pairs", "1", "--count", "60"]
    command += ["--peers", "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {entry["name"] for entry in found} >= {"teacher_tail", "teacher_zero", "teacher_tail_peak_mb"}
    for entry in found:
        assert (
            set(entry) == {"name", "ours", "peer", "peer_name", "peer_version", "ratio", "unit"} and entry["ours"] > 0
        )
