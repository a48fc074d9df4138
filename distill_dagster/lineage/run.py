"""The provenance of one run: code, environment, times. None of it enters a data version."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import time
import uuid
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import distill_dagster


def new_run_id() -> str:
    """A run id that sorts by time, to the microsecond."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
    return f"{moment}.{nanoseconds // 1000:06d}Z-{uuid.uuid4().hex[:8]}"


@cache
def code_state() -> dict[str, Any]:
    """Commit of the package's checkout and a digest of what is not committed there.

    Both are None where no repository tracks the package: installed from a wheel, also inside somebody's repository.
    """
    folder = Path(distill_dagster.__file__).parent

    def git(*args: str) -> bytes | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout

    tracked = git("ls-files", "--error-unmatch", "__init__.py")
    commit = git("rev-parse", "HEAD") if tracked else None
    if commit is None:
        return {"package": distill_dagster.__version__, "commit": None, "dirty": None}
    changes = git("diff", "HEAD", "--", ".") or b""
    for name in sorted((git("ls-files", "-z", "--others", "--exclude-standard") or b"").split(b"\0")):
        path = folder / os.fsdecode(name)
        if name and path.is_file():
            changes += name + b"\0" + hashlib.sha256(path.read_bytes()).digest()
    return {
        "package": distill_dagster.__version__,
        "commit": commit.decode().strip(),
        "dirty": hashlib.sha256(changes).hexdigest()[:16] if changes else None,
    }


@cache
def environment() -> dict[str, Any]:
    """Python, platform, and the packages whose versions shape results, with a digest of all installed ones."""
    shaping = ("torch", "transformers", "tokenizers", "numpy", "pyarrow", "scikit-learn", "dagster", "mlflow")
    installed = sorted({f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions() if d.metadata["Name"]})
    versions = {line.split("==")[0].lower(): line.split("==")[1] for line in installed}
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: versions[name] for name in shaping if name in versions},
        "lock": hashlib.sha256("\n".join(installed).encode()).hexdigest()[:32],
    }
