"""Comparing files with what manifests and run records say of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from upath import UPath

from distill_dagster.errors import StoreError
from distill_dagster.lineage.chain import key_of
from distill_dagster.records.identity import record_root
from distill_dagster.records.tables import record_ids, roots
from distill_dagster.storage.names import DamagedError, run_name, version_name
from distill_dagster.storage.store import Store, Version, file_sha256

#: What the lineage folder beside served weights may hold.
LINEAGE = ("lineage/chain.json",)


def served(folder: Path, files: dict[str, Any]) -> tuple[int, list[str]]:
    """Compare a served folder with the student's manifest, file by file, both ways.

    Returns:
        How many files were hashed, and what is not as it was.
    """
    expected = {name.removeprefix("model/"): entry for name, entry in files.items() if name.startswith("model/")}
    problems: list[str] = []
    present = set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (path.is_file() or path.is_symlink()) and name not in LINEAGE:
            present.add(name)
    for name in sorted(present - expected.keys()):
        problems.append(f"{name}: served, but the student never had this file")
    for name in sorted(expected.keys() - present):
        problems.append(f"{name}: the student had this file, and it is not served")
    hashed = 0
    for name in sorted(expected.keys() & present):
        hashed += 1
        if file_sha256(folder / name) != expected[name]["sha256"]:
            problems.append(f"{name}: the served bytes are not the student's")
    return hashed, problems


class Stored:
    """One version of a chain, with every file of it re-hashed and its record roots recomputed.

    Attributes:
        integrity: Files that are not what was sealed.
        completeness: What is not in the store.
        hashed: Files that were hashed.
    """

    def __init__(self, store: Store, entry: dict[str, Any]) -> None:
        self.entry = entry
        self.where = f"{entry['artifact']}@{entry['version'][:12]}"
        self.integrity: list[str] = []
        self.completeness: list[str] = []
        self.hashed = 0
        try:
            key = key_of(entry["artifact"])
            place = store.folder(key) / version_name(entry["version"], self.where)
            if not (place / "manifest.json").exists():
                self.completeness.append(f"{self.where}: it is not in the store")
                return
            self._hash(place, "manifest.json", entry["sha256"]["manifest"])
            self._hash(place, f"runs/{run_name(entry['run_id'], self.where)}.json", entry["sha256"]["run"])
            version = store.open(key, entry["version"])
        except DamagedError:  # said already, since its digest is another
            return
        except StoreError as error:
            self.integrity.append(f"{self.where}: the chain names what cannot be in a store ({error})")
            return
        self._files(version)
        for name, table in entry["manifest"]["tables"].items():
            self._roots(version, name, table)

    def _hash(self, place: UPath, name: str, expected: str) -> None:
        try:
            stream: Any = place.fs.open((place / name).path, "rb")
            with stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            self.integrity.append(f"{self.where}: {name} is gone")
            return
        self.hashed += 1
        if digest != expected:
            self.integrity.append(f"{self.where}: {name} is not what was sealed")

    def _files(self, version: Version) -> None:
        """Every file the manifest and the run record list, and none beside them."""
        manifest, run = self.entry["manifest"], f"runs/{self.entry['run_id']}"
        listed = {**manifest["files"], **manifest["attached"]}
        listed |= {f"{name}.parquet": entry for name, entry in manifest["tables"].items()}
        sides = {f"{run}/{name}": entry for name, entry in self.entry["run"]["side"].items()}
        for name, expected in {**listed, **sides}.items():
            self._hash(version.place, name, expected["sha256"])
        base = version.place.path.rstrip("/")
        for path in sorted(version.place.fs.find(base)):
            name = path[len(base) + 1 :]
            own_run = not name.startswith("runs/") or name.startswith(f"{run}/")
            if own_run and name not in listed and name not in sides and name != "manifest.json":
                self.integrity.append(f"{self.where}: {name} was added after it was sealed")

    def _roots(self, version: Version, name: str, table: dict[str, Any]) -> None:
        """Recompute the record root from the records' content, not from their stored ids."""
        try:
            rows = version.table(name)
            if rows.num_rows != table["rows"]:
                self.integrity.append(f"{self.where}: {name} has {rows.num_rows} rows, not {table['rows']}")
            if "record_id" not in rows.column_names:
                root = roots(rows)["all"]
            else:
                found = list(record_ids(rows))
                for said, is_ in zip(rows["record_id"].to_pylist(), found, strict=True):
                    if said != is_:
                        self.integrity.append(f"{self.where}: a record of {name} is not what its id says ({said[:12]})")
                        break
                root = record_root(found)
        except Exception as error:  # a damaged parquet file raises whatever its decoder meets
            self.integrity.append(f"{self.where}: {name}.parquet cannot be read ({type(error).__name__})")
            return
        if root != table["roots"]["all"]:
            self.integrity.append(f"{self.where}: the records of {name} do not amount to their root")
