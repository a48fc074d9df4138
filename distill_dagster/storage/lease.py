"""One writer at a time: a lock that dies with its holder and names it while it lives."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import filelock

from distill_dagster.errors import LeaseError
from distill_dagster.storage.atomic import store_error


@contextmanager
def lease(folder: Path, name: str, wait: float = 0.0) -> Iterator[None]:
    """Hold the exclusive lease `name`.

    The operating system releases it when the holder ends, however it ends. Only one machine may use `folder`.

    Args:
        folder: Local folder of lock files.
        name: What is held, for the message.
        wait: Seconds to wait for another holder.

    Raises:
        LeaseError: Somebody else holds it; the message says who, and since when.
    """
    safe = quote(name, safe="")
    note = folder / f"{safe}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f"{safe}.lock")
        lock.acquire(timeout=wait, poll_interval=0.2)
    except filelock.Timeout as error:
        raise LeaseError(
            name, f"held by {_holder(note)}.", "Wait for it to finish, or stop it, and run again."
        ) from error
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
