"""A process with everything imported, which forks one process a run: a kill costs what it interrupts, not the imports.

What a run finds out about its machine (commit, installed packages) is found out before the fork as well.

Reads one order a line, `{name, folder, select, dagster, at, child_at, before_seal, log}`, and prints the process id
when the run starts and its exit status when it ended. Training processes are forked as well; each leads its own group
and runs the package's own entry point.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FAULT_AT, FAULT_LOG = "DISTILL_FAULT_AT", "DISTILL_FAULT_LOG"


class Forked:
    """Called like `subprocess.Popen` for `python -m distill_dagster.training.process TASK`."""

    faults: dict[str, str] = {}

    def __init__(self, command: Sequence[str], *, env: dict[str, str], stdout: Any, **others: Any) -> None:
        assert list(command[1:3]) == ["-m", "distill_dagster.training.process"] and others["start_new_session"]
        theirs, ours = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ours)
            _train(list(command[3:]), env, theirs, stdout.fileno())
        os.close(theirs)
        self.stdin = os.fdopen(ours, "wb")

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends."""
        until = time.monotonic() + (3600 if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("training", timeout or 0)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode


def _train(arguments: list[str], env: dict[str, str], stdin: int, output: int) -> None:
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for source, target in ((stdin, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.environ.clear()
        os.environ.update({name: value for name, value in env.items() if name not in (FAULT_AT, FAULT_LOG)})
        os.environ.update(Forked.faults)
        from distill_dagster.storage import faults
        from distill_dagster.training import process

        faults._passed = 0
        status = process.main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def work(order: dict[str, Any]) -> int:
    """One run, in a process of its own."""
    from pipeline.tiny import Tiny

    from distill_dagster import cli
    from distill_dagster.storage import faults
    from distill_dagster.storage.store import Store

    folder = Path(order["folder"])
    state = folder / "state"
    os.environ.update(Tiny(folder, order["name"]).environment)
    os.environ |= {"DAGSTER_HOME": str(state / "dagster"), "MLFLOW_TRACKING_URI": f"sqlite:///{state}/mlflow/mlflow.db"}
    for key, log in (("at", "points"), ("child_at", "child_points")):
        mine = os.environ if key == "at" else Forked.faults
        if order.get(key) is not None:
            mine[FAULT_AT] = str(order[key])
        if order.get(log) is not None:
            mine[FAULT_LOG] = order[log]
    faults._passed = 0
    if order.get("before_seal"):
        seal = Store.seal

        def kill(self: Store, draft: Any, run: Any) -> Any:
            if draft.key[1] in order["before_seal"]:
                os.write(1, f"\nkilled {draft.key[1]}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            return seal(self, draft, run)

        Store.seal = kill
    selected = [word for name in order.get("select", ()) for word in ("--select", name)]
    how = [] if order.get("dagster") else ["--no-dagster"]
    sys.argv = ["distill-dagster", "run", order["name"], *selected, *how]
    try:
        cli.main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def warm() -> None:
    """Do beforehand what every run would do alike: import, load plugins, look at the checkout and the packages."""
    import dagster  # noqa: F401
    import mlflow  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import distill_dagster
    from distill_dagster.domains.registry import discover
    from distill_dagster.lineage.run import code_state, environment

    for module in pkgutil.walk_packages(distill_dagster.__path__, "distill_dagster."):
        if module.name != "distill_dagster.definitions":  # reads the project where it is imported
            importlib.import_module(module.name)
    discover()
    code_state()
    environment()
    gc.collect()
    gc.freeze()  # a collection in the child would copy every page


def main() -> None:
    """Warm up, then fork one process an order."""
    warm()
    from distill_dagster.training import launch

    os.fsync = lambda _: None  # a killed process loses nothing that the kernel has; waiting for the disk shows nothing
    launch.INTERVAL = 0.02
    launch.subprocess = SimpleNamespace(  # type: ignore[assignment]
        Popen=Forked,
        PIPE=subprocess.PIPE,
        STDOUT=subprocess.STDOUT,
        TimeoutExpired=subprocess.TimeoutExpired,
    )
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                log = os.open(order["log"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
                os.dup2(log, 1)
                os.dup2(log, 2)
                sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), write_through=True)
                sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), write_through=True)
                status = work(order)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        answers.write(f"{pid}\n")
        _, status = os.waitpid(pid, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    main()
