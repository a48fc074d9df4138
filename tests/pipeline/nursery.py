"""Training processes that start fast: forked from a server that has torch imported already.

Each is a process of its own with its own group, as `subprocess.Popen` would have made it, and runs the package's own
entry point; only the seconds of importing torch are saved.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "pyarrow.parquet",
        "safetensors.torch",
        "transformers.models.llama.modeling_llama",
        "distill_dagster.models.folder",
        "distill_dagster.training.presets",
        "distill_dagster.training.process",
        "distill_dagster.training.trainer",
    ]
)


class Start:
    """Called like `subprocess.Popen` for `python -m distill_dagster.training.process TASK`."""

    def __init__(self, command: Sequence[str], *, env: dict[str, str], stdout: Any, **others: Any) -> None:
        assert list(command[:3]) == [sys.executable, "-m", "distill_dagster.training.process"]
        assert others == {"stdin": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
        theirs, self.stdin = _server.Pipe(duplex=False)
        output = Connection(os.dup(stdout.fileno()), readable=False)
        self.process = _server.Process(target=_child, args=(list(command[3:]), env, theirs, output))
        self.process.start()
        theirs.close()
        output.close()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status; minus the signal's number where one ended it."""
        return self.process.exitcode

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("training", timeout or 0)
        return self.process.exitcode


def _child(arguments: list[str], env: dict[str, str], stdin: Connection, output: Connection) -> None:
    os.setsid()
    for source, target in ((stdin, 0), (output, 1), (output, 2)):
        os.dup2(source.fileno(), target)
    os.environ.clear()
    os.environ.update(env)
    from distill_dagster.training import process

    status = process.main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
