"""The real command, in this process or in one of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest
from pipeline.tiny import Tiny

from distill_dagster import cli, console


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit status."""

    code: int
    out: str
    err: str

    def refused(self, *words: str, code: int = 1) -> Said:
        """It ended with that code and one message that holds these words; no traceback."""
        assert self.code == code, self
        assert "Traceback" not in self.out + self.err, self
        for word in words:
            assert word in self.out + self.err, (word, self)
        return self


def command(project: Tiny, *arguments: str, **environment: str) -> Said:
    """Run the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in {**project.environment, "COLUMNS": "200", **environment}.items():
            patch.setenv(name, value)
        patch.setenv("DAGSTER_HOME", str(project.settings.state / "dagster"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.settings.state / 'mlflow' / 'mlflow.db'}")
        for terminal in (console.out, console.err):  # they measured the terminal when they were made
            patch.setattr(terminal, "width", 200)
        patch.setattr(sys, "argv", ["distill-dagster", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


def process(project: Tiny, *arguments: str, before: str = "", **environment: str) -> Said:
    """Run the command in a process of its own, after some Python lines."""
    code = f"{before}\nimport sys\nfrom distill_dagster.cli import main\nsys.argv[0] = 'distill-dagster'\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **project.environment, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    return Said(done.returncode, done.stdout, done.stderr)
