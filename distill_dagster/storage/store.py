"""The content-addressed artifact store.

Layout under the root: `<prefix>/<namespace>/<owner>/<artifact>/<version>/` holds `manifest.json`, the content files,
and `runs/<id>.json` with the side files of each run beside it. On a local file system a version is written beside
and renamed; on an object store the manifest, put last and only if absent, is the commit.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from upath import UPath

from distill_dagster.errors import StoreError
from distill_dagster.records.identity import canonical, digest
from distill_dagster.storage.atomic import create_bytes, make_folder, store_error, sync_file, sync_folder, write_bytes
from distill_dagster.storage.draft import PREFIX, Draft, left_behind
from distill_dagster.storage.faults import fault_point
from distill_dagster.storage.names import (
    DamagedError,
    Key,
    finite,
    inside,
    json_bytes,
    key_text,
    parsed,
    part,
    run_name,
    version_name,
)
from distill_dagster.storage.version import Version, file_sha256

__all__ = ["DamagedError", "Draft", "Key", "Store", "Version", "file_sha256", "inside", "key_text"]


class Store:
    """Versions, heads and known actions under one root.

    Args:
        root: A folder or any fsspec URL.
        prefix: Optional folders between the root and the namespace.
        namespace: Client, matter or study; nothing is shared across namespaces.
        cache: Local folder for fetched files and drafts of a remote store.

    Raises:
        StoreError: Prefix or namespace would leave the root.
    """

    def __init__(
        self, root: str | Path, namespace: str = "default", prefix: str = "", cache: Path | None = None
    ) -> None:
        self.root = UPath(root)
        self.is_local = isinstance(self.root.fs, LocalFileSystem)
        if self.is_local:
            self.root = UPath(Path(self.root.path).expanduser().resolve())
        elif self.root.protocol not in ("sftp", "ssh"):  # They give every option to their connection, and keep nothing.
            # s3fs and others keep a listing for ever, and other machines write here too.
            self.root = UPath(self.root, use_listings_cache=False)
        steps = [*filter(None, prefix.split("/")), namespace]
        self.base = self.root.joinpath(*(part(step, f"store {self.root}") for step in steps))
        self.namespace = namespace
        #: Names the store's part of the root, for leases and work folders.
        self.scope = "/".join(steps)
        self.cache = cache or Path(tempfile.gettempdir()) / f"distill-cache-{digest(str(self.root))[:12]}"

    def folder(self, key: Key) -> UPath:
        """Folder of an artifact's versions."""
        return self.base.joinpath(*(part(step, key_text(key)) for step in key))

    def drafts(self, key: Key) -> Path:
        """Local folder where an artifact's drafts are written: beside its versions, where that is local."""
        if self.is_local:
            return Path(self.folder(key).path)
        return self.cache.joinpath("drafts", *self.scope.split("/"), *(part(step, key_text(key)) for step in key))

    # -- reading

    def open(self, key: Key, version: str) -> Version:
        """A version by its data version."""
        return Version(self, key, version)

    def has(self, key: Key, version: str, run_id: str) -> bool:
        """True where a version is sealed and the run that made it is on record."""
        place = self.folder(key) / version_name(version, key_text(key))
        run = place / "runs" / f"{run_name(run_id, key_text(key))}.json"
        return (place / "manifest.json").exists() and run.exists()

    def head(self, key: Key) -> dict[str, str] | None:
        """`{version, run, action}` of the newest materialization, or None.

        Raises:
            DamagedError: It is not what was written.
            StoreError: The root cannot be read, such as one that is a file.
        """
        place = self.folder(key) / "head.json"
        try:
            text = place.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise store_error(error, str(place)) from error
        try:
            return parsed(text, str(place), ("version", "run", "action"))
        except DamagedError as error:
            raise DamagedError(error.place, error.reason, "Delete it and run again: a known action finds it.") from None

    def action(self, action: str) -> dict[str, str] | None:
        """`{owner, artifact, version, run}` that an action made, or None where it is unknown or its version is gone."""
        place = self._action_path(action)
        try:
            known = parsed(place.read_bytes(), str(place), ("owner", "artifact", "version", "run"))
        except (FileNotFoundError, DamagedError):  # making it again is always right
            return None
        return known if self.has((known["owner"], known["artifact"]), known["version"], known["run"]) else None

    def versions(self, key: Key) -> list[str]:
        """Sealed versions of an artifact."""
        folder = self.folder(key)
        if not folder.exists():
            return []
        return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and (p / "manifest.json").exists())

    def artifacts(self) -> list[Key]:
        """Keys of every artifact that has a folder."""
        owners = self._folders(self.base)
        return sorted((owner, artifact) for owner in owners for artifact in self._folders(self.base / owner))

    def _folders(self, place: UPath) -> list[str]:
        if not place.exists():
            return []
        return [path.name for path in place.iterdir() if not path.name.startswith(".") and path.is_dir()]

    # -- writing

    def draft(self, key: Key) -> Draft:
        """Begin a version; call it under the artifact's lease, since it clears what dead writers left."""
        folder = self.drafts(key)
        for leftover in folder.glob(f"{PREFIX}*") if folder.is_dir() else ():
            if left_behind(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        for leftover in folder.glob(".*.tmp") if folder.is_dir() else ():
            leftover.unlink(missing_ok=True)
        return Draft(self, key)

    def seal(self, draft: Draft, run: dict[str, Any]) -> Version:
        """Make a draft a version with its run record; returns the version that now holds this content.

        Args:
            draft: Tables and files.
            run: The run record; `id` and `action` are required. Its side files are bound by hash. Where it says
                `incomplete`, the version becomes the head, but its action is not remembered as done.

        Raises:
            StoreError: The store cannot be written, or the draft holds what cannot be sealed.
        """
        run_name(run["id"], key_text(draft.key))
        sides = draft.files(draft.side)
        for name, rows in draft.sides.items():
            sides[name]["rows"] = rows
        try:
            record = json_bytes(finite({**run, "side": sides}))
        except (TypeError, ValueError) as error:
            place = f"{key_text(draft.key)}: run record"
            raise StoreError(place, f"it is not JSON ({error}).", "Nothing was sealed.") from None
        files: dict[str, dict[str, Any]] = {}
        tables: dict[str, dict[str, Any]] = {}
        attached: dict[str, dict[str, Any]] = {}
        try:
            for name, entry in draft.files(draft.content).items():
                fault_point("seal.fsync")
                sync_file(draft.content / name)
                if name in draft.tables:
                    tables[name.removesuffix(".parquet")] = {**draft.tables[name], **entry}
                elif name in draft.attached:
                    attached[name] = entry
                else:
                    files[name] = entry
        except OSError as error:
            raise store_error(error, draft.content) from error
        content = {
            "tables": {name: entry["roots"] for name, entry in tables.items()},
            "files": {name: entry["sha256"] for name, entry in files.items()},
        }
        version = digest(content)[:32]
        manifest = {
            "format": 1,
            "artifact": key_text(draft.key),
            "data_version": version,
            "tables": tables,
            "files": files,
            "attached": attached,
        }
        place = self.folder(draft.key) / version
        try:
            self._publish(draft, place, json_bytes(manifest))
            self._publish_run(draft, place / "runs", run["id"], sides, record)
        except OSError as error:
            raise store_error(error, str(place)) from error
        draft.discard()
        if run.get("incomplete"):
            self.move_head(draft.key, version, run["id"], run["action"])
        else:
            self.record(run["action"], draft.key, version, run["id"])
        return self.open(draft.key, version)

    def record(self, action: str, key: Key, version: str, run_id: str) -> None:
        """Remember what an action made, and move the artifact's head there."""
        known = {"owner": key[0], "artifact": key[1], "version": version, "run": run_id}
        self._put(self._action_path(action), canonical(known))
        self.move_head(key, version, run_id, action)

    def move_head(self, key: Key, version: str, run_id: str, action: str) -> None:
        """Point an artifact at a version it already has."""
        self._put(self.folder(key) / "head.json", canonical({"version": version, "run": run_id, "action": action}))

    def _action_path(self, action: str) -> UPath:
        return self.base / ".actions" / action[:2] / f"{action}.json"

    def _publish(self, draft: Draft, place: UPath, manifest: bytes) -> None:
        if (place / "manifest.json").exists():
            return
        if not self.is_local:
            for name in draft.files(draft.content):
                fault_point("seal.put")
                self._put(place / name, (draft.content / name).read_bytes())
            fault_point("seal.commit")
            with suppress(FileExistsError):
                self.create(place / "manifest.json", manifest)
            return
        write_bytes(draft.content / "manifest.json", manifest)
        for folder in [draft.content, *(path for path in draft.content.rglob("*") if path.is_dir())]:
            sync_folder(folder)
        target = Path(place.path)
        if target.exists():  # a version that was being deleted: its manifest went first
            shutil.rmtree(target)
        fault_point("seal.rename")
        os.rename(draft.content, target)
        sync_folder(target.parent)
        fault_point("seal.renamed")

    def _publish_run(self, draft: Draft, place: UPath, run_id: str, sides: Iterable[str], record: bytes) -> None:
        if sides and self.is_local:
            target = Path(place.path) / run_id
            for name in sides:
                sync_file(draft.side / name)
            for folder in [draft.side, *(path for path in draft.side.rglob("*") if path.is_dir())]:
                sync_folder(folder)
            make_folder(target.parent)
            fault_point("run.rename")
            os.rename(draft.side, target)
            sync_folder(target.parent)
        elif sides:
            for name in sides:
                self._put(place / run_id / name, (draft.side / name).read_bytes())
        fault_point("run.commit")
        with suppress(FileExistsError):
            self.create(place / f"{run_id}.json", record)

    def _put(self, path: UPath, data: bytes) -> None:
        if self.is_local:
            write_bytes(Path(path.path), data)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def create(self, path: UPath, data: bytes) -> None:
        """Put a file that must not exist yet; of two writers, exactly one succeeds.

        Raises:
            FileExistsError: Another writer was first; its file stays.
            StoreError: The place cannot be written, or the disk is full.
        """
        if self.is_local:
            create_bytes(Path(path.path), data)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.fs.pipe_file(path.path, data, mode="create")
