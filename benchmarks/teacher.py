"""`make bench-teacher`: asking a teacher through the journal, beside a bare aiohttp client, on one loopback server.

Pairs are interleaved, each run has a process of its own, and medians are told. The tail workload has 0.2 s latency with
5 % of the questions at 1 s; the other has none. The last lines are JSON, one a measure; `ratio` above 1 means that
ours is better.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from importlib.metadata import version
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
WORKLOADS = {
    "tail": {"latency": 0.2, "tail": 1.0, "share": 0.05},
    "zero": {"latency": 0.0, "tail": 0.0, "share": 0.0},
}


def run(system: str, port: int, count: int, in_flight: int) -> dict[str, float]:
    """One run of one system in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"http://127.0.0.1:{port}/v1"
        command = [sys.executable, str(HERE / "teacher_worker.py"), system, url, str(count), str(in_flight), folder]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    return json.loads(done.stdout.splitlines()[-1])


def call(port: int, path: str, body: dict | None = None) -> dict:
    """The server's counters, or its new settings."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=10) as reply:
        return json.load(reply)


def measure(name: str, port: int, count: int, in_flight: int, pairs: int) -> dict[str, list[dict[str, float]]]:
    """Interleaved pairs of one workload; the first system of a pair changes."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    for pair in range(pairs):
        for system in ("ours", "bare") if pair % 2 == 0 else ("bare", "ours"):
            call(port, "/reset", WORKLOADS[name])
            result = run(system, port, count, in_flight)
            seen = call(port, "/counters")
            assert result["answered"] == seen["requests"] == count, (system, result, seen)
            assert seen["most_in_flight"] <= in_flight, seen
            runs[system].append(result)
            print(f"{name} {system}: {result['seconds']:.2f} s, {count / result['seconds']:.0f}/s", file=sys.stderr)
    return runs


def lines(name: str, count: int, runs: dict[str, list[dict[str, float]]]) -> list[dict]:
    """Measures of one workload: seconds (or records a second), processor seconds, peak memory."""
    middle = {
        system: {key: median(entry[key] for entry in results) for key in ("seconds", "cpu", "peak_mb")}
        for system, results in runs.items()
    }
    ours, bare = middle["ours"], middle["bare"]
    peer = {"peer_name": "bare aiohttp", "peer_version": version("aiohttp")}
    if name == "tail":
        ratios = [b["seconds"] / o["seconds"] for o, b in zip(runs["ours"], runs["bare"], strict=True)]
        first = {"ours": ours["seconds"], "peer": bare["seconds"], **peer, "ratio": median(ratios), "unit": "s"}
    else:
        rates = count / ours["seconds"], count / bare["seconds"]
        first = {"ours": rates[0], "peer": rates[1], **peer, "ratio": rates[0] / rates[1], "unit": "records/s"}
    found = [{"name": f"teacher_{name}", **first}]
    for key, unit in (("cpu", "s"), ("peak_mb", "MB")):
        ratio = bare[key] / ours[key]
        found.append(
            {
                "name": f"teacher_{name}_{key}",
                "ours": ours[key],
                "peer": bare[key],
                **peer,
                "ratio": ratio,
                "unit": unit,
            }
        )
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--count", type=int, default=1000, help="prompts of the tail workload; twice as many without latency"
    )
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--anyway", action="store_true", help="measure on a loaded machine as well")
    options = parser.parse_args()
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
            found += lines(name, count, measure(name, port, count, options.in_flight, options.pairs))
    finally:
        server.kill()
        server.communicate()
    print(f"{'measure':24}{'ours':>10}{'bare':>10}{'ratio':>8}  unit")
    for entry in found:
        print(f"{entry['name']:24}{entry['ours']:10.2f}{entry['peer']:10.2f}{entry['ratio']:8.2f}  {entry['unit']}")
    for entry in found:
        print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in entry.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
