"""The benchmark of the teacher path runs, small, and says what it promises."""

import json
import subprocess
import sys

import pytest

ONLY_DAGSTER = {"definitions", "mirror", "run", "orchestrator"}
PARTS = {"stage", "upstream", "start", "whole", "peak_mb"} | ONLY_DAGSTER


@pytest.mark.slow
@pytest.mark.needs_torch
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
    # The same through the asset; every part of the run that is measured has its own figure.
    by_name = {entry["name"]: entry for entry in found}
    for workload in ("tail", "zero"):
        assert {f"teacher_{workload}_core", f"teacher_{workload}_asset"} <= set(by_name)
        parts = {part: by_name[f"teacher_{workload}_asset_{part}"] for part in PARTS}
        seconds = {part: entry["ours"] for part, entry in parts.items() if entry["unit"] == "s"}
        own = seconds["definitions"] + seconds["mirror"] + seconds["run"]
        assert seconds["orchestrator"] == pytest.approx(own, abs=0.001)
        accounted = seconds["orchestrator"] + seconds["stage"] + seconds["upstream"] + seconds["start"]
        assert 0.5 * seconds["whole"] < accounted < seconds["whole"]
        assert {part for part, entry in parts.items() if entry["peer"] is None} == ONLY_DAGSTER
