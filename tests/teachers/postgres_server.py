"""A PostgreSQL server for one test session: a throw-away cluster that listens on a Unix socket alone."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """Folder of initdb and postgres, the newest that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    return Path(path).resolve().parent if path else None


def _unprivileged() -> dict:
    """What starts a process as somebody whom the server accepts: it refuses to run as root."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A running server; yields the address of its database `postgres`."""
    bin_folder = programs()
    assert bin_folder is not None
    rights = _unprivileged()
    # A socket's path has at most 107 bytes, and pytest's own folders are closed to others.
    place = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    log = (folder / "postgres.log").open("wb")
    try:
        if rights:
            os.chown(place, rights["user"], rights["group"])
        common = {"stdout": log, "stderr": log, "cwd": place, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
        data = str(place / "data")
        initdb = [str(bin_folder / "initdb"), "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([*initdb, "--locale=C"], check=True, timeout=120, **common, **rights)
        options = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60", "-k", str(place)]
        process = subprocess.Popen([str(bin_folder / "postgres"), "-D", data, *options], **common, **rights)
        try:
            address = f"postgresql://tester@/postgres?host={place}"
            _wait(address, process)
            yield address
        finally:
            process.terminate()  # with connections open: a fast shutdown needs SIGINT
            process.send_signal(2)
            process.wait(60)
    finally:
        log.close()
        shutil.rmtree(place, ignore_errors=True)


def _wait(address: str, process: subprocess.Popen) -> None:
    import psycopg

    deadline = time.monotonic() + 120
    while True:
        try:
            psycopg.connect(address).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
