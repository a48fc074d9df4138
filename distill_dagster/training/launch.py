"""Starting the training process and staying with it; standard library only, so that any parent can afford it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill_dagster import errors
from distill_dagster.errors import DistillError, LeaseError, TrainingError
from distill_dagster.training.metrics import FILE as METRICS
from distill_dagster.training.metrics import read
from distill_dagster.training.process import ATTEMPT, HELD, RESULT, WATCH

LOG = "log.txt"
#: Seconds between looks at the metrics, and how long a child may take to end when asked.
INTERVAL, PATIENCE = 0.1, 3.0

Start = Callable[..., Any]


def launch(
    task: Mapping[str, Any],
    work: str | Path,
    env: Mapping[str, str] | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    start: Start | None = None,
) -> dict[str, Any]:
    """Train in a process of its own, and wait for it.

    The child leads its own process group. Whatever ends this call early (an exception in `progress`, Ctrl-C, SIGTERM)
    kills the group; if this process is killed outright, the child sees its standard input close and ends itself.

    Args:
        task: What `distill_dagster.training.process` reads; `work` is filled in.
        work: Work folder; its `log.txt` receives what the child prints.
        env: Variables beside this process's own, for example of a Dagster Pipes session.
        progress: Called with (step, steps, loss) for every logged step.
        start: Called like `subprocess.Popen`, in its place; to wrap the command for torchrun, Slurm or a container.

    Returns:
        The trainer's summary.

    Raises:
        TrainingError: What the child reports, or how it died, with the end of its log.
        LeaseError: Another process trains in this work folder.
        DistillError: Any other error the child reports, by its own class.
    """
    folder = Path(work)
    folder.mkdir(parents=True, exist_ok=True)
    whole = {**task, "work": str(folder)}
    place = str(task.get("name") or folder)
    (folder / "task.json").write_text(json.dumps(whole, indent=2, sort_keys=True), encoding="utf-8")
    attempt = uuid.uuid4().hex
    variables = {**os.environ, **(env or {}), WATCH: "1", ATTEMPT: attempt, "PYTHONUNBUFFERED": "1"}
    variables.setdefault("TOKENIZERS_PARALLELISM", "false")
    variables.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    log = folder / LOG
    from_here = log.stat().st_size if log.exists() else 0
    metrics = _Follow(folder / METRICS, int(task["recipe"].get("steps", 0)), progress)
    with log.open("ab") as output, _sigterm_raises():
        child = (start or subprocess.Popen)(
            _command(int(task["recipe"].get("processes") or 1), folder / "task.json"),
            env=variables,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                metrics.look()
                time.sleep(INTERVAL)
            metrics.look()
        finally:
            end(child)
    result = _result(folder / RESULT, attempt)
    if result is None:
        tail = _tail(log, from_here)
        if child.returncode == HELD:
            raise LeaseError(place, tail or "another process trains in this folder.")
        memory = "Where nobody killed it, the machine was out of memory: lower training.batch_tokens or max_length. "
        raise TrainingError(
            place,
            f"the training process ended with {_status(child.returncode)} and left no result. {tail}".strip(),
            f"{memory if child.returncode == -signal.SIGKILL else ''}See {log}. Run again: it resumes from its last "
            "checkpoint.",
        )
    if not result["ok"]:
        kind = getattr(errors, str(result.get("kind")), TrainingError)
        kind = kind if isinstance(kind, type) and issubclass(kind, DistillError) else TrainingError
        raise kind(result["place"], result["reason"], result["next_step"])
    return result["summary"]


def _command(processes: int, task: Path) -> list[str]:
    """What is started: the training process, or torchrun with several of them on this machine."""
    module = ["-m", "distill_dagster.training.process", str(task)]
    if processes == 1:
        return [sys.executable, *module]
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *run, *module]


def end(child: Any) -> None:
    """End a child's whole process group, and take its exit status. Harmless when it has ended."""
    if child.stdin is not None:
        try:
            child.stdin.close()
        except OSError:
            pass
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue
    child.wait()


class _Follow:
    """Calls `progress` for every new line of a metrics file."""

    def __init__(self, path: Path, steps: int, progress: Callable[[int, int, float], None] | None) -> None:
        self.path, self.steps, self.progress = path, steps, progress
        self.stale, self.size, self.last = self._stat()[0], -1, 0

    def _stat(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
            return found.st_ino, found.st_size
        except OSError:
            return 0, 0

    def look(self) -> None:
        """Report what has been added. A file that the child has not yet made anew is an earlier run's."""
        inode, size = self._stat()
        if self.progress is None or inode in (0, self.stale) or size == self.size:
            return
        self.stale, self.size = -1, size
        for row in read(self.path):
            if row["step"] > self.last:
                self.last = row["step"]
                self.progress(self.last, self.steps, row["loss"])


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM unwind this call, where nobody else handles it, so that the child is not left behind."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    if mine:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _result(path: Path, attempt: str) -> dict[str, Any] | None:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if result.get("attempt") == attempt else None


def _tail(log: Path, start: int, lines: int = 12) -> str:
    with log.open("rb") as stream:
        stream.seek(start)
        text = stream.read().decode("utf-8", "replace").strip()
    return "\n".join(text.splitlines()[-lines:])


def _status(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
