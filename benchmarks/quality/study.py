"""Cells of a study: each is measured once, in a process that takes one after the other, and kept as a JSON file.

A cell is one training (or baseline) with everything that decides it; its file holds item scores and what it cost. A
study that was stopped, or killed, goes on with the cells that have no file, and a cell within which a training was
stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Every arm of a part is tried with so many learning rates, on D_val, with a seed that no result is of.
TRIALS = 2
TUNING = "tuning"


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        part: The module that measures it: `run(study, cell)` returns what its file holds.
        arm: What is trained.
        size: Of its data, where that varies; else 0.
        seed: Number of a paired seed; `tuning` for a trial.
        trial: Which of the learning rates, of a trial.
        needs: Names of cells that have to be measured before.
        more: What else the part wants to know.
    """

    part: str
    arm: str
    size: int = 0
    seed: int | str = 0
    trial: int = 0
    needs: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its file's name."""
        return name_of(self.part, self.arm, self.size, self.seed, self.trial)


def name_of(part: str, arm: str, size: int = 0, seed: int | str = 0, trial: int = 0) -> str:
    """`banking-labels-1000-s0`, `banking-labels-1000-t2`."""
    return f"{part}-{arm}-{size}-{f't{trial}' if seed == TUNING else f's{seed}'}"


def trials(part: str, arm: str, size: int, needs: Iterable[str] = (), **more: Any) -> list[Cell]:
    """The trials of an arm."""
    return [Cell(part, arm, size, TUNING, trial, tuple(needs), more) for trial in range(TRIALS)]


class Study:
    """A folder of cells.

    Args:
        out: The folder.
        options: What every cell has to know: a mapping that JSON can hold.
    """

    def __init__(self, out: str | Path, options: dict[str, Any]) -> None:
        self.out, self.options = Path(out).resolve(), options
        self.cells = self.out / "cells"
        self.cells.mkdir(parents=True, exist_ok=True)

    def has(self, name: str) -> bool:
        """Is it measured?"""
        return (self.cells / f"{name}.json").exists()

    def read(self, name: str) -> dict[str, Any]:
        """What was measured."""
        return json.loads((self.cells / f"{name}.json").read_text("utf-8"))

    def keep(self, name: str, found: dict[str, Any]) -> None:
        """Write a cell's file, whole or not at all."""
        place = self.cells / f".{name}.tmp"
        place.write_text(json.dumps(found), "utf-8")
        place.rename(self.cells / f"{name}.json")

    def work(self, name: str) -> Path:
        """Folder of a training on its way."""
        place = self.out / "work" / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def model(self, name: str) -> Path:
        """Where a cell puts weights that others start from."""
        return self.out / "models" / name

    def rate(self, cell: Cell, rates: Sequence[float], size: int | None = None) -> float:
        """The learning rate of a cell: its own of a trial, else the one that did best on D_val; the lower of equals."""
        assert len(rates) == TRIALS, rates
        if cell.seed == TUNING:
            return rates[cell.trial]
        names = [name_of(cell.part, cell.arm, size or cell.size, TUNING, trial) for trial in range(TRIALS)]
        scores = [float(self.read(name)["validation"]) for name in names]
        return min(zip(rates, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))[0]

    def measure(self, cell: Cell) -> None:
        """Measure one cell in this process."""
        part: Any = importlib.import_module(cell.part)
        wall, own = time.perf_counter(), time.process_time()
        found = part.run(self, cell)
        cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - own}
        self.keep(cell.name, {**found, **cost, "device": str(self.options.get("device"))})
        shutil.rmtree(self.out / "work" / cell.name, ignore_errors=True)


def line(name: str, ours: float, peer: float, peer_name: str, unit: str = "share right") -> dict[str, Any]:
    """One measure, as every benchmark prints it; the peer is this package's own, trained another way."""
    from distill_dagster import __version__

    return {
        "name": f"quality {name}",
        "ours": round(ours, 4),
        "peer": round(peer, 4),
        "peer_name": peer_name,
        "peer_version": __version__,
        "ratio": round(ours / max(peer, 1e-9), 3),
        "unit": unit,
    }


class Worker:
    """A process that measures cells one after the other."""

    def __init__(self, study: Study) -> None:
        command = [sys.executable, str(HERE / "worker.py"), str(study.out), json.dumps(study.options)]
        # One thread a process: sums come out the same, and processes share the cores.
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        settings.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        root = [str(HERE.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings["PYTHONPATH"] = os.pathsep.join(root)
        self.log = (study.out / f"worker-{os.getpid()}-{id(self)}.log").open("wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=settings
        )

    def measure(self, cell: Cell) -> str:
        """Measure it there; empty, or what went wrong."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(asdict(cell)) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)["error"]
        return f"its process ended with {self.process.wait()}; see {self.log.name}"

    @property
    def alive(self) -> bool:
        """Can it take another cell?"""
        return self.process.poll() is None

    def end(self) -> None:
        """Let the process go."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # What was written last was never read.
                    pass
        self.process.wait()
        self.log.close()


def measure_all(study: Study, cells: Sequence[Cell], workers: int, told: Callable[[str], None] = print) -> list[str]:
    """Measure every cell that has no file, in the order given as far as their needs allow.

    Returns:
        What went wrong, a line a cell; cells that need a failed one are not measured and not listed.
    """
    waiting = [cell for cell in cells if not study.has(cell.name)]
    total, began = len(waiting), time.monotonic()
    failed: list[str] = []
    running = 0
    changed = threading.Condition()

    def ready() -> Cell | None:
        for cell in waiting:
            if all(study.has(name) for name in cell.needs):
                return cell
        return None

    def work() -> None:
        nonlocal running
        worker = Worker(study)
        try:
            while True:
                with changed:
                    while (cell := ready()) is None and waiting and running:
                        changed.wait()
                    if cell is None:  # Nothing is left, or what is left needs what failed.
                        return
                    waiting.remove(cell)
                    running += 1
                if not worker.alive:
                    worker.end()
                    worker = Worker(study)
                error = worker.measure(cell)
                with changed:
                    running -= 1
                    if error:
                        failed.append(f"{cell.name}: {error}")
                    done, spent = total - len(waiting) - running, time.monotonic() - began
                    left = spent / max(1, done) * (total - done)
                    told(f"[{done}/{total}, {spent / 60:.1f} min, about {left / 60:.0f} more] {cell.name} {error}")
                    changed.notify_all()
        finally:
            with changed:
                changed.notify_all()
            worker.end()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, max(1, total)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed
