"""Which process holds something, and whether it is still there."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def place() -> str:
    """Where a process number means something: host, boot and process space."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    parts = [socket.gethostname()]
    parts.append(boot.read_text().strip() if boot.exists() else "")
    parts.append(str(space.stat().st_ino) if space.exists() else "")
    return "/".join(parts)


def started(pid: int) -> str:
    """When a process started, by its system's own count; "alive" where that is unknown, "" where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        state, *fields = stat.rsplit(")", 1)[1].split()
        return "" if state in "ZX" else fields[18]
    except FileNotFoundError:
        pass
    except (OSError, IndexError):
        return ""
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
