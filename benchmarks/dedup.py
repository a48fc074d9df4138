"""Near-duplicate removal beside datatrove's MinHash: `make bench-dedup`, or `python benchmarks/dedup.py --rows 100000`.

Both get the same documents, in turn, in the same run; each in processes of its own. Ours is one process with one
thread. datatrove runs its four steps (signatures, buckets, clusters, filter) with two workers, word 3-shingles as
ours, 14 buckets of 8 hashes (its default), from and to JSON lines on disk. Its Python environment is made under
`benchmarks/.venv-datatrove` on the first run.

A table is printed, and last one line of JSON a measure. A loaded machine is refused unless `--force` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dedup_corpus import Document, documents, judged

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("DISTILL_REAL_DATA", HERE.parent.parent / "shared" / "data"))
PEER_HOME = HERE / ".venv-datatrove"
PEER = ("datatrove[io,processing]==0.10.1", "xxhash<4")
#: Other work that a measurement bears, in cores.
IDLE = 0.5
CHUNK = 50_000


def corpus(rows: int, target: Path) -> list[Document]:
    """Write the documents as parquet for ours and JSON lines for the peer; returns their kinds without the texts."""
    known: list[Document] = []
    schema = pa.schema([("text", pa.string())])
    (target / "peer").mkdir()
    writers = [(target / "peer" / f"{part}.jsonl").open("w", encoding="utf-8") for part in range(2)]
    with pq.ParquetWriter(target / "texts.parquet", schema) as table:
        texts: list[str] = []
        for number, found in enumerate(documents(DATA, rows)):
            known.append(Document("", found.kind, found.base))
            texts.append(found.text)
            # The halves stay in order, so that either tool may keep the first of two.
            line = json.dumps({"text": found.text, "id": str(number)})
            writers[number * 2 // rows].write(line + "\n")
            if len(texts) == CHUNK or number == rows - 1:
                table.write_table(pa.table({"text": texts}, schema=schema))
                texts = []
    for writer in writers:
        writer.close()
    return known


def ours(folder: Path) -> dict[str, Any]:
    """One measurement of this package."""
    command = [sys.executable, str(HERE / "dedup_ours.py"), str(folder / "texts.parquet"), str(folder / "dropped.npy")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    found = _last_line(command, environment)
    return {**found, "dropped": set(np.load(folder / "dropped.npy").tolist())}


def peer(folder: Path) -> dict[str, Any]:
    """One measurement of datatrove."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    command = [str(PEER_HOME / "bin" / "python"), str(HERE / "dedup_datatrove.py"), str(folder / "peer"), str(work)]
    found = _last_line(command, {**os.environ, "OMP_NUM_THREADS": "1"})
    return {**found, "dropped": set(json.loads((work / "dropped.json").read_text()))}


def _last_line(command: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[1]} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def environment_of_the_peer() -> str:
    """Make the peer's environment where there is none; its version."""
    python = PEER_HOME / "bin" / "python"
    if not python.exists():
        venv.create(PEER_HOME, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER], check=True)
    said = subprocess.run(
        [str(python), "-c", "from importlib.metadata import version; print(version('datatrove'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.strip()


def require_idle(force: bool) -> float:
    """Load of the machine; ends the run where it is too high."""
    load = os.getloadavg()[0]
    if load > IDLE and not force:
        sys.exit(f"the machine is loaded ({load:.1f}); stop other work, or give --force and say so beside the figures")
    return load


def measures(mine: list[dict], theirs: list[dict], known: list[Document], version: str) -> list[dict[str, Any]]:
    """One entry a measure, in the form that every benchmark prints."""
    rows = len(known)

    def entry(name: str, own: float | None, other: float | None, unit: str, larger: bool = True) -> dict[str, Any]:
        ratio = None if own is None or not other else own / other if larger else other / max(own, 1e-12)
        return {
            "name": f"dedup {name}", "ours": own, "peer": other, "peer_name": "datatrove", "peer_version": version,
            "ratio": ratio, "unit": unit,
        }  # fmt: skip

    def speed(runs: list[dict]) -> float | None:
        return rows / statistics.median(run["seconds"] for run in runs) if runs else None

    first, other = mine[0], theirs[0] if theirs else None
    found = [entry("speed", speed(mine), speed(theirs), "rows/s")]
    peaks = [statistics.median(run["peak_bytes"] for run in runs) if runs else None for runs in (mine, theirs)]
    found.append(entry("peak memory", peaks[0], peaks[1], "bytes", larger=False))
    grown = statistics.median((run["peak_bytes"] - run["base_bytes"]) / rows for run in mine)
    found.append(entry("memory beyond the base", grown, None, "bytes/row", larger=False))
    quality = judged(known, first["dropped"])
    beside = judged(known, other["dropped"]) if other else {}
    for name, value in quality.items():
        found.append(entry(name.replace("_", " "), value, beside.get(name), "share", name != "near_misses_dropped"))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=3, help="interleaved measurements of each")
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--force", action="store_true", help="measure on a loaded machine")
    given = parser.parse_args()
    load = require_idle(given.force)
    version = "" if given.no_peer else environment_of_the_peer()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = corpus(given.rows, folder)
        mine, theirs = [], []
        for _ in range(given.pairs):
            mine.append(ours(folder))
            if not given.no_peer:
                theirs.append(peer(folder))
        found = measures(mine, theirs, known, version)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before"
    print(f"{given.rows:,} documents, {given.pairs} pair(s), {machine}")
    print(f"{'measure':<28}{'ours':>16}{'datatrove':>16}{'ratio':>9}  unit")
    for entry in found:
        cells = ["-" if entry[side] is None else f"{entry[side]:,.4g}" for side in ("ours", "peer")]
        ratio = "-" if entry["ratio"] is None else f"{entry['ratio']:.2f}"
        print(f"{entry['name']:<28}{cells[0]:>16}{cells[1]:>16}{ratio:>9}  {entry['unit']}")
    for entry in found:
        print(json.dumps(entry))


if __name__ == "__main__":
    main()
