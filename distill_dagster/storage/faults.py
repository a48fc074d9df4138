"""Numbered fault points: every write, fsync and commit passes one, so a test can kill the process at each in turn.

Without the environment variables they cost one dictionary look-up. `DISTILL_FAULT_AT=N` kills the process (SIGKILL)
at its N-th point; `DISTILL_FAULT_LOG=FILE` appends each point's number and name, for counting them beforehand.
"""

from __future__ import annotations

import os
import signal
from threading import Lock

_lock = Lock()
_passed = 0


def fault_point(name: str) -> None:
    """Mark a moment at which a crash must be harmless."""
    at, log = os.environ.get("DISTILL_FAULT_AT"), os.environ.get("DISTILL_FAULT_LOG")
    if at is None and log is None:
        return
    global _passed
    with _lock:
        _passed += 1
        number = _passed
    if log is not None:
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(f"{number} {os.getpid()} {name}\n")
    if at is not None and number == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
