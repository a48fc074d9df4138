"""Durable, atomic writes on a local file system."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from distill_dagster.errors import StoreError
from distill_dagster.settings import Settings
from distill_dagster.storage.faults import fault_point


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Create a folder and what is missing above it, durably.

    Raises:
        OSError: As `os.mkdir` does.
    """
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_folder(one.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content: old bytes or new bytes are visible, never a mix.

    Raises:
        StoreError: The place cannot be written, or the disk is full.
    """
    _write(path, data, os.replace)


def create_bytes(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet; of two writers, exactly one succeeds.

    Raises:
        FileExistsError: It is there already.
        StoreError: The place cannot be written, or the disk is full.
    """
    try:
        _write(path, data, _link)
    except StoreError as error:
        # Not where the file is this writer's own, and its folder could not be made durable.
        if isinstance(error.__cause__, FileExistsError) and path.exists():
            raise FileExistsError(str(path)) from error
        raise


def _write(path: Path, data: bytes, publish: Callable[[Path, Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        make_folder(path.parent)
        fault_point("file.write")
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            fault_point("file.fsync")
            os.fsync(stream.fileno())
        fault_point("file.rename")
        publish(temporary, path)
        sync_folder(path.parent)
        fault_point("file.done")
    except OSError as error:
        _forget(temporary)
        raise store_error(error, path, len(data)) from error
    except BaseException:
        _forget(temporary)
        raise


def _link(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        _rename_to_new(temporary, target)
        return
    temporary.unlink()


def _rename_to_new(temporary: Path, target: Path) -> None:
    """What a hard link does, where there are none: one writer at a time looks and renames.

    A name that was taken before its bytes are there would be an empty file to readers, and stay one where its writer
    dies.
    """
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        os.replace(temporary, target)
    finally:
        os.close(folder)


def _forget(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # the place that could not be written, such as a path below a file
        pass


def store_error(error: OSError, path: Path | str, size: int | None = None) -> StoreError:
    """An operating system error as one that says what to do, with the variable of the root it is about."""
    place = str(path)
    variable = Settings.root_of(path)
    choose = f"choose another root with {variable}" if variable else "name another place"
    needed = f" ({size} bytes were to be written)" if size is not None else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            place,
            f"the disk is full or a size limit is reached{needed}.",
            "Free some space (`distill-dagster gc plan`) and run again; nothing already made is lost.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(place, "it cannot be written (no permission, or read-only).", f"Mend that, or {choose}.")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        file = error.filename or place
        return StoreError(place, f"a file stands where a folder is needed: {file}.", f"Move it away, or {choose}.")
    return StoreError(
        place,
        f"{error.strerror or error}{needed}.",
        f"Mend it{f', or {choose},' if variable else ''} and run again; nothing made is lost.",
    )
