"""One writer at a time: a lock that dies with its holder and names it while it lives."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import filelock

from distill_dagster.errors import LeaseError
from distill_dagster.storage.atomic import store_error

#: Who waits is told of the holder at once, and again after so many seconds.
TELL_EVERY = 60.0


@contextmanager
def lease(folder: Path, name: str, wait: float = 0.0, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the exclusive lease `name`.

    The operating system releases it when the holder ends, however it ends. Only one machine may use `folder`.

    Args:
        folder: Local folder of lock files.
        name: What is held, for the message.
        wait: Seconds to wait for another holder.
        waiting: Told who holds it, as in "held by process 12 on host since ...", while it is waited for.

    Raises:
        LeaseError: Somebody else holds it; the message says who, and since when.
    """
    safe = quote(name, safe="")
    note = folder / f"{safe}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f"{safe}.lock")
        end, patience = time.monotonic() + wait, 0.0
        while True:
            try:
                lock.acquire(timeout=patience, poll_interval=0.2)
                break
            except filelock.Timeout as error:
                held, left = f"held by {_holder(note)}", end - time.monotonic()
                if left <= 0:
                    raise LeaseError(name, f"{held}.", "Wait for it to finish, or stop it, and run again.") from error
                if waiting is not None:
                    waiting(held)
                patience = min(left, TELL_EVERY)
    except OSError as error:
        raise store_error(error, folder) from error
    try:
        entry = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        try:
            note.write_text(json.dumps(entry), encoding="utf-8")
        except OSError as error:
            raise store_error(error, note) from error
        yield
    finally:
        try:
            note.unlink(missing_ok=True)  # while the lock is held: the next holder's note must stay
        finally:
            lock.release()


def _holder(path: Path) -> str:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        return f"process {entry['pid']} on {entry['host']} since {entry['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
