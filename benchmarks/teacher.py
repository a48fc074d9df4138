"""`make bench-teacher`: asking a teacher through the journal, beside a bare aiohttp client and the peers whose
environments are there (`make bench-peers`: distilabel, Bespoke Curator, DataDesigner), on one loopback server. Then the
same questions as a project's `teacher_outputs`, through Dagster (`asset`) and by the plain stages (`core`), with what
the orchestrator takes apart from the asking.

Rounds are interleaved, each run has a process of its own, and medians are told. The tail workload has 0.2 s latency
with 5 % of the questions at 1 s; the other has none. The last lines are JSON, one a measure; `ratio` above 1 means that
ours is better.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
WORKLOADS = {
    "tail": {"latency": 0.2, "tail": 1.0, "share": 0.05},
    "zero": {"latency": 0.0, "tail": 0.0, "share": 0.0},
}


#: A whole project, by `teacher_asset.py`.
PROJECTS = ("core", "asset")
PEERS = {"distilabel": "distilabel", "curator": "Bespoke Curator", "designer": "DataDesigner"}


def run(system: str, port: int, count: int, in_flight: int, environments: Path = HERE) -> dict[str, Any]:
    """One run of one system in a process of its own, a peer's in the peer's own environment."""
    with tempfile.TemporaryDirectory() as folder:
        python, script = sys.executable, "teacher_worker.py"
        if system in PEERS:
            python, script = str(environments / f".venv-{system}" / "bin" / "python"), "teacher_peer.py"
        elif system in PROJECTS:
            script = "teacher_asset.py"
        url = f"http://127.0.0.1:{port}/v1"
        command = [python, str(HERE / script), system, url, str(count), str(in_flight), folder]
        settings = {**os.environ, "OMP_NUM_THREADS": "1"}
        if system in PEERS:
            settings.pop("PYTHONPATH", None)
        for name in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI"):  # the project's own, in its folder
            settings.pop(name, None)
        started = time.time()
        if system in PROJECTS:
            command.append(str(started))
        done = subprocess.run(command, capture_output=True, text=True, env=settings, cwd=folder, timeout=900)
        wall = time.time() - started
        if done.returncode:
            raise RuntimeError(f"{system}: {done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    if system in PROJECTS:
        orchestrator = sum(result["parts"][name] for name in ("definitions", "mirror", "run"))
        result["parts"] |= {"orchestrator": orchestrator, "whole": wall}
    return result


def call(port: int, path: str, body: dict | None = None) -> dict:
    """The server's counters, or its new settings."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=10) as reply:
        return json.load(reply)


def measure(
    name: str, port: int, count: int, in_flight: int, rounds: int, systems: Sequence[str], environments: Path
) -> dict[str, list[dict[str, Any]]]:
    """Interleaved rounds of one workload; the first system of a round changes."""
    runs: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
    for number in range(rounds):
        at = number % len(systems)
        for system in (*systems[at:], *systems[:at]):
            call(port, "/reset", WORKLOADS[name])
            result = run(system, port, count, in_flight, environments)
            seen = call(port, "/counters")
            # A peer may ask something of its own first (Bespoke Curator does, once).
            extra = seen["requests"] - count
            assert result["answered"] == count and (0 <= extra <= 3 if system in PEERS else extra == 0), (result, seen)
            assert system in PEERS or seen["most_in_flight"] <= in_flight, seen
            runs[system].append(result)
            said = f"{result['seconds']:.2f} s, {count / result['seconds']:.0f}/s, {seen['requests']} requests"
            print(f"{name} {system}: {said}, {seen['most_in_flight']} in flight", file=sys.stderr)
    return runs


def lines(name: str, count: int, runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Measures of one workload beside each system: seconds (or records a second), processor seconds, peak memory."""
    middle = {
        system: {key: median(entry[key] for entry in results) for key in ("seconds", "cpu", "peak_mb")}
        for system, results in runs.items()
    }
    ours = middle["ours"]
    found = []
    for system, theirs in middle.items():
        if system == "ours" or system in PROJECTS:
            continue
        label = f"teacher_{name}" if system == "bare" else f"teacher_{name}_{system}"
        peer = {"peer_name": "bare aiohttp", "peer_version": version("aiohttp")}
        if system in PEERS:
            peer = {"peer_name": PEERS[system], "peer_version": runs[system][0]["version"]}
        # The ratio of each pair, not of the medians: what slows the machine down slows both of a pair.
        ratio = median(b["seconds"] / o["seconds"] for o, b in zip(runs["ours"], runs[system], strict=True))
        if name == "tail":
            found.append(
                {"name": label, "ours": ours["seconds"], "peer": theirs["seconds"], **peer, "ratio": ratio, "unit": "s"}
            )
        else:
            rates = {"ours": count / ours["seconds"], "peer": count / theirs["seconds"]}
            found.append({"name": label, **rates, **peer, "ratio": ratio, "unit": "records/s"})
        for key, unit in (("cpu", "s"), ("peak_mb", "MB")):
            ratio = theirs[key] / ours[key]
            values = {"ours": ours[key], "peer": theirs[key]}
            found.append({"name": f"{label}_{key}", **values, **peer, "ratio": ratio, "unit": unit})
    return found


def project_lines(name: str, count: int, runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Measures of a project's `teacher_outputs`: the asking beside bare HTTP; its parts beside those without Dagster.

    What only Dagster does (definitions, mirror, run, and these three as `orchestrator`) has no peer and no ratio.
    """
    found = []
    for system in PROJECTS:
        mine, bare = runs[system], runs["bare"]
        ours, peer = (median(entry["seconds"] for entry in of) for of in (mine, bare))
        ratio = median(b["seconds"] / o["seconds"] for o, b in zip(mine, bare, strict=True))
        values, unit = {"ours": ours, "peer": peer}, "s"
        if name != "tail":
            values, unit = {"ours": count / ours, "peer": count / peer}, "records/s"
        label = {"name": f"teacher_{name}_{system}", **values}
        peer = {"peer_name": "bare aiohttp", "peer_version": version("aiohttp")}
        found.append({**label, **peer, "ratio": ratio, "unit": unit})
    peer = {"peer_name": "without Dagster", "peer_version": version("distill-dagster")}

    def beside(part: str, asset: Sequence[float], core: Sequence[float], unit: str) -> dict[str, Any]:
        there = all(core)
        ratio = median(c / a for a, c in zip(asset, core, strict=True)) if there else None
        values = {"ours": median(asset), "peer": median(core) if there else None}
        return {"name": f"teacher_{name}_asset_{part}", **values, **peer, "ratio": ratio, "unit": unit}

    parts = ("stage", "upstream", "start", "definitions", "mirror", "run", "orchestrator", "whole")
    for part in parts:
        both = [[entry["parts"][part] for entry in runs[system]] for system in ("asset", "core")]
        # Without Dagster its run is a loop over the stages: microseconds, no figure to be beside.
        core = both[1] if part not in ("run", "orchestrator") else [0.0] * len(both[1])
        found.append(beside(part, both[0], core, "s"))
    peaks = {system: [entry["peak_mb"] for entry in runs[system]] for system in PROJECTS}
    found.append(beside("peak_mb", peaks["asset"], peaks["core"], "MB"))
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--count", type=int, default=1000, help="prompts of the tail workload; twice as many without latency"
    )
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--peers", help="such as distilabel,curator; by default those that are installed, `none`: none")
    parser.add_argument("--environments", type=Path, default=HERE, help="folder of the peers' .venv-NAME")
    parser.add_argument("--anyway", action="store_true", help="measure on a loaded machine as well")
    options = parser.parse_args()
    there = [name for name in PEERS if (options.environments / f".venv-{name}" / "bin" / "python").exists()]
    wanted = there if options.peers is None else [name for name in options.peers.split(",") if name != "none"]
    systems = ("ours", "bare", *PROJECTS, *wanted)
    load = os.getloadavg()[0]
    if load > 0.5 * (os.cpu_count() or 1) and not options.anyway:
        print(f"the machine is busy (load {load:.1f}): wait, or give --anyway", file=sys.stderr)
        return 1
    server = subprocess.Popen([sys.executable, str(HERE / "loopback_server.py")], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        found = []
        for name, count in (("tail", options.count), ("zero", 2 * options.count)):
            runs = measure(name, port, count, options.in_flight, options.pairs, systems, options.environments)
            found += lines(name, count, runs) + project_lines(name, count, runs)
    finally:
        server.kill()
        server.communicate()
    print(f"{'measure':32}{'ours':>10}{'theirs':>10}{'ratio':>8}  unit")
    for entry in found:
        peer, ratio = ("-" if entry[key] is None else f"{entry[key]:.2f}" for key in ("peer", "ratio"))
        print(f"{entry['name']:32}{entry['ours']:10.2f}{peer:>10}{ratio:>8}  {entry['unit']}")
    for entry in found:
        print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in entry.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
