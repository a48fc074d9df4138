"""One immutable version of an artifact, for reading."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill_dagster.errors import StoreError
from distill_dagster.storage.atomic import write_bytes
from distill_dagster.storage.names import DamagedError, Key, inside, key_text, parsed, run_name, version_name

if TYPE_CHECKING:
    from distill_dagster.storage.store import Store

MANIFEST_FIELDS = ("artifact", "data_version", "tables", "files", "attached")
RUN_FIELDS = ("id", "action", "side")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Version:
    """One immutable version of an artifact, for reading.

    Raises:
        StoreError: There is no such version.
        DamagedError: Its manifest cannot be read.
    """

    def __init__(self, store: Store, key: Key, version: str) -> None:
        self.store, self.key, self.version = store, key, version
        self.place = store.folder(key) / version_name(version, key_text(key))
        try:
            text = (self.place / "manifest.json").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(
                f"{key_text(key)}@{version[:12]}", "no such version in the store.", "Materialize it first."
            ) from None
        self.manifest: dict[str, Any] = parsed(text, str(self.place / "manifest.json"), MANIFEST_FIELDS)

    def __str__(self) -> str:
        return f"{key_text(self.key)}@{self.version[:12]}"

    def listed(self) -> dict[str, dict[str, Any]]:
        """Every file of the version by relative name: tables, content files, attached files."""
        tables = {f"{name}.parquet": entry for name, entry in self.manifest["tables"].items()}
        return {**self.manifest["files"], **tables, **self.manifest["attached"]}

    def table(self, name: str, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
        """A content table, whole or in part."""
        if name not in self.manifest["tables"]:
            raise StoreError(str(self), f"it has no table {name!r}.", f"It has {sorted(self.manifest['tables'])}.")
        return pq.read_table(self.local(f"{name}.parquet"), columns=columns, filters=filters)

    def local(self, name: str = "") -> Path:
        """A local path of a content file, of a folder of them, or of all; fetched once where the store is remote.

        Raises:
            StoreError: The version has no such file.
            DamagedError: What a remote store sent is not what was sealed.
        """
        wanted = {
            entry: facts
            for entry, facts in self.listed().items()
            if name in ("", entry) or entry.startswith(f"{name}/")
        }
        target = Path(self.place.path) if self.store.is_local else self.store.cache / "/".join(self.key) / self.version
        if name and not wanted:
            inside(target, name)
            raise StoreError(str(self), f"it has no file {name!r}.", "See its manifest.json for what it has.")
        for entry, facts in {} if self.store.is_local else wanted.items():
            path = inside(target, entry)
            if not path.exists():
                data = (self.place / entry).read_bytes()
                if hashlib.sha256(data).hexdigest() != facts["sha256"]:
                    raise DamagedError(f"{self}: {entry}", "it is not what was sealed.", "Restore it from a copy.")
                write_bytes(path, data)
        return inside(target, name)

    def roots(self, parts: dict[str, tuple[str, ...]] | None = None) -> dict[str, Any]:
        """What a reader of this version reads: the roots of the named parts of tables, or the whole data version."""
        if parts is None:
            return {"data_version": self.version}
        for table in parts:
            if table not in self.manifest["tables"]:
                raise StoreError(str(self), f"it has no table {table!r}.", f"It has {sorted(self.manifest['tables'])}.")
        return {
            table: {part: self.manifest["tables"][table]["roots"].get(part) for part in wanted}
            for table, wanted in parts.items()
        }

    def runs(self) -> Iterator[dict[str, Any]]:
        """Run records, oldest first."""
        folder = self.place / "runs"
        if folder.exists():
            for path in sorted(folder.glob("*.json"), key=lambda entry: entry.name):
                yield self.run(path.name.removesuffix(".json"))

    def run(self, run_id: str) -> dict[str, Any]:
        """One run record.

        Raises:
            StoreError: There is no such run.
            DamagedError: Its record cannot be read.
        """
        place = self.place / "runs" / f"{run_name(run_id, str(self))}.json"
        try:
            return parsed(place.read_bytes(), str(place), RUN_FIELDS)
        except FileNotFoundError:
            raise StoreError(str(self), f"it has no run {run_id!r}.", "Materialize it again.") from None

    def side_table(self, run_id: str, name: str, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
        """A provenance table of one run, whole or in part: calls, decisions, duplicates."""
        place = self.place / "runs" / run_name(run_id, str(self)) / f"{name}.parquet"
        try:
            with place.open("rb") as stream:
                return pq.read_table(stream, columns=columns, filters=filters)
        except FileNotFoundError:
            raise StoreError(str(self), f"run {run_id} has no table {name!r}.", "See its run record.") from None
