"""Collecting what nobody needs: plan first, then apply that plan.

Kept are heads, promoted versions, pins, the last N versions of every artifact, and everything above those. The work
folder of a run that failed is kept for a while, since the same action resumes from it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from distill_dagster.lineage.chain import key_of
from distill_dagster.lineage.engine import hold
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.storage.store import Key, Store, key_text

Item = tuple[Key, str]


@dataclass(frozen=True)
class Garbage:
    """A version that may go, with its size in bytes."""

    key: Key
    version: str
    size: int


@dataclass(frozen=True)
class Abandoned:
    """A work folder that no run came back to, with its size in bytes."""

    folder: Path
    size: int


#: Days after which a failed run's work folder may go.
WORK_DAYS = 7.0


def abandoned(store: Store, state: Path, days: float = WORK_DAYS) -> list[Abandoned]:
    """Work folders of a store's actions in which nothing was written for so many days.

    A run that succeeds removes its own; what is left is of runs that failed or were killed, and were not run again.
    """
    root = state.joinpath("work", *store.scope.split("/"))
    found = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else ():
        stats = [path.stat() for path in (folder, *folder.rglob("*"))]
        if time.time() - max(one.st_mtime for one in stats) >= days * 86_400:
            found.append(Abandoned(folder, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())))
    return found


def plan(store: Store, keep_last: int = 3, pins: frozenset[str] = frozenset()) -> list[Garbage]:
    """Versions that no head, promotion, pin or kept version needs, and what an interrupted deletion left.

    Args:
        store: The store.
        keep_last: Newest versions to keep of every artifact, by their newest run; a head is the newest.
        pins: `owner/artifact@version` texts to keep.

    Raises:
        StoreError: A pin names nothing that is there; nothing is planned then.
        DamagedError: A manifest, run record, head or ledger entry cannot be read, so what it needs is not known.
    """
    pinned = [_pin(store, text) for text in sorted(pins)]
    keep = _needed(store, keep_last, pinned)
    return [
        Garbage(key, version, _size(store, key, version))
        for key in store.artifacts()
        for version in [*store.versions(key), *_leftovers(store, key)]
        if (key, version) not in keep
    ]


def _needed(store: Store, keep_last: int, pinned: list[Item]) -> set[Item]:
    """Versions that must stay."""
    queue: list[Item] = [*pinned]
    sealed = {key: store.versions(key) for key in store.artifacts()}
    for key, versions in sealed.items():
        head = (store.head(key) or {}).get("version")

        def age(version: str, key: Key = key, head: str | None = head) -> tuple[bool, str]:
            return version == head, _newest_run(store, key, version)

        queue += [(key, version) for version in sorted(versions, key=age, reverse=True)[:keep_last]]
        if head is not None:
            queue.append((key, head))
    for entry in Ledger(store).entries():
        if entry["kind"] in ("promoted", "examined"):
            payload = entry["payload"]
            queue.append(((payload["pipeline"], "deployed_student"), payload["version"]))
            queue.append(((payload["pipeline"], "eval_report"), payload["report"]))
    keep: set[Item] = set()
    while queue:
        item = queue.pop()
        if item in keep or item[1] not in sealed.get(item[0], ()):
            continue
        keep.add(item)
        for run in store.open(*item).runs():
            queue += [(key_of(parent["artifact"]), parent["version"]) for parent in run["parents"]]
    return keep


def apply(store: Store, garbage: list[Garbage], leases: Path | None = None, work: Sequence[Abandoned] = ()) -> int:
    """Delete the planned versions and work folders; returns the bytes freed.

    What has come to be needed since the plan stays. The manifest goes first, so that no half version is ever seen.

    Args:
        store: The store.
        garbage: A plan.
        leases: The state folder's leases, held meanwhile, so that no run is reading what is deleted.
        work: Work folders to delete.

    Raises:
        LeaseError: Something is being made; the error says what, and by whom.
    """
    freed = 0
    with ExitStack() as held:
        if leases is not None:
            for key in store.artifacts():
                held.enter_context(hold(store, key, leases))
        needed = _needed(store, 0, [])
        for entry in garbage:
            place = store.folder(entry.key) / entry.version
            if (entry.key, entry.version) in needed or not place.exists():
                continue
            manifest = place / "manifest.json"
            if manifest.exists():
                manifest.unlink()
            place.fs.rm(place.path, recursive=True)
            freed += entry.size
        for one in work:
            shutil.rmtree(one.folder, ignore_errors=True)
            freed += one.size
    return freed


def _pin(store: Store, text: str) -> Item:
    name, _, version = text.partition("@")
    key = key_of(name)
    return key, store.open(key, version).version


def _leftovers(store: Store, key: Key) -> list[str]:
    """Versions without a manifest: their deletion was cut short. On object stores they may be in the making."""
    if not store.is_local:
        return []
    sealed = set(store.versions(key))
    folders = (path for path in store.folder(key).iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(path.name for path in folders if path.name not in sealed)


def _newest_run(store: Store, key: Key, version: str) -> str:
    folder = store.folder(key) / version / "runs"
    return max((path.name for path in folder.glob("*.json")), default="") if folder.exists() else ""


def _size(store: Store, key: Key, version: str) -> int:
    place = store.folder(key) / version
    return sum(place.fs.size(path) or 0 for path in place.fs.find(place.path))


def describe(garbage: list[Garbage], work: Sequence[Abandoned] = ()) -> str:
    """One line a version or work folder, and the total."""
    lines = [f"{key_text(entry.key)}@{entry.version[:12]}  {entry.size:>12,} bytes" for entry in garbage]
    lines += [f"work folder {one.folder.name[:12]}  {one.size:>12,} bytes" for one in work]
    folders = f" and {len(work)} work folders" if work else ""
    size = sum(entry.size for entry in (*garbage, *work))
    return "\n".join([*lines, f"{len(garbage)} versions{folders}, {size:,} bytes"])
