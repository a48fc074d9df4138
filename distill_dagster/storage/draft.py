"""A version being written."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill_dagster.errors import StoreError
from distill_dagster.records.schemas import SCHEMA_VERSION
from distill_dagster.records.tables import roots
from distill_dagster.storage.atomic import make_folder, store_error
from distill_dagster.storage.faults import fault_point
from distill_dagster.storage.holder import place, started
from distill_dagster.storage.names import Key, inside, json_bytes, key_text
from distill_dagster.storage.version import file_sha256

if TYPE_CHECKING:
    from distill_dagster.storage.store import Store

PREFIX = ".draft-"
#: What its folder's name says of a draft's writer: where its number means something, the number, when it started.
_WRITER = re.compile(re.escape(PREFIX) + r"(?P<place>[0-9a-f]{12})-(?P<pid>\d+)-(?P<started>\w+)-[0-9a-f]{32}")
#: Seconds without a change after which a draft whose writer cannot be looked up counts as left behind.
SILENCE = 24 * 3600.0
_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def left_behind(folder: Path) -> bool:
    """Has a draft no writer any more? The lease does not tell: another state folder on the same store has its own.

    A writer on this machine is looked up; one elsewhere, or one that the name does not tell, is given up after a day
    without a change.
    """
    said = _WRITER.fullmatch(folder.name)
    if said is not None and said["place"] == _here():
        return started(int(said["pid"])) != said["started"]
    try:
        newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:  # it changes under our eyes
        return False
    return time.time() - newest > SILENCE


def _here() -> str:
    return hashlib.sha256(place().encode("utf-8", "replace")).hexdigest()[:12]


def _name() -> str:
    """A new draft's name. The writer stands in it and not in a file: a kill leaves no draft that names nobody."""
    pid = os.getpid()
    return f"{PREFIX}{_here()}-{pid}-{started(pid)}-{uuid.uuid4().hex}"


class Draft:
    """A version being written. Nothing is visible to readers before `Store.seal`."""

    def __init__(self, store: Store, key: Key) -> None:
        self.store, self.key = store, key
        self.folder = store.drafts(key) / _name()
        try:
            make_folder(self.folder / "content")
            make_folder(self.folder / "side")
        except OSError as error:
            raise store_error(error, self.folder) from error
        self.tables: dict[str, dict[str, Any]] = {}
        self.sides: dict[str, int] = {}
        self.attached: set[str] = set()

    @property
    def side(self) -> Path:
        """Folder for side files: evidence of this run, kept beside the content and bound by hash."""
        return self.folder / "side"

    @property
    def content(self) -> Path:
        """Folder for content files; all that lies there when the draft is sealed is the version."""
        return self.folder / "content"

    def write_table(self, name: str, table: pa.Table, by: str | None = None, side: bool = False) -> None:
        """Add a record table.

        Args:
            name: File stem.
            table: The rows.
            by: Column whose values get a root each, so that a reader of one part is not moved by another.
            side: The table is evidence of this run, not content that others read.
        """
        if not _TABLE.fullmatch(name):
            raise StoreError(key_text(self.key), f"{name!r} cannot name a table.", "Use letters, digits and _.")
        path = (self.side if side else self.content) / f"{name}.parquet"
        fault_point(f"table.{name}")
        try:
            pq.write_table(table, path, compression="zstd")
        except OSError as error:
            raise store_error(error, path, table.nbytes) from error
        if side:
            self.sides[f"{name}.parquet"] = table.num_rows
        else:
            self.tables[f"{name}.parquet"] = {
                "rows": table.num_rows,
                "schema_version": SCHEMA_VERSION,
                "roots": roots(table, by),
            }

    def write_json(self, name: str, value: Any, side: bool = False, attach: bool = False) -> None:
        """Add a file holding JSON.

        Args:
            name: Relative name.
            value: JSON value.
            side: It is evidence of this run, not content.
            attach: It lies among the content and is guarded by hash, but is no part of the data version.
        """
        folder = self.side if side else self.content
        path = inside(folder, name)
        try:
            data = json_bytes(value)
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{key_text(self.key)}: {name}", f"it is not JSON ({error}).", "Nothing was sealed."
            ) from None
        fault_point(f"json.{name}")
        try:
            make_folder(path.parent)
            path.write_bytes(data)
        except OSError as error:
            raise store_error(error, path, len(data)) from error
        if attach:
            self.attached.add(path.relative_to(folder.resolve()).as_posix())

    def files(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Size and digest of every file below one of the draft's folders, by relative name.

        Raises:
            StoreError: A link, which could change after sealing, or a name that the store keeps for itself.
        """
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise StoreError(
                    f"{key_text(self.key)}: {name}", "it is a link, not a file.", "Copy what it points at."
                )
            if folder == self.content and (name == "manifest.json" or name.split("/")[0] == "runs"):
                raise StoreError(f"{key_text(self.key)}: {name}", "the store keeps this name for itself.", "Rename it.")
            if path.is_file():
                found[name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        return found

    def discard(self) -> None:
        """Forget the draft."""
        shutil.rmtree(self.folder, ignore_errors=True)
