"""The chain of versions behind a version, down to the seed set: manifests and run records, no record text.

Each entry carries the digests of the two files it was read from, so whoever binds a chain binds every byte of it: a
manifest binds its content, a run record its side files.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from distill_dagster.errors import StoreError
from distill_dagster.records.identity import digest
from distill_dagster.storage.names import DamagedError
from distill_dagster.storage.store import Key, Store, Version


def seals(version: Version, run_id: str) -> dict[str, str]:
    """Digests of a version's manifest file and of one run record, for a ledger entry or a chain."""
    run = version.place / "runs" / f"{run_id}.json"
    return {
        "manifest": hashlib.sha256((version.place / "manifest.json").read_bytes()).hexdigest(),
        "run": hashlib.sha256(run.read_bytes()).hexdigest(),
    }


def collect(store: Store, starts: Sequence[tuple[Version, str]]) -> dict[str, Any]:
    """Manifests and run records of some versions and of everything above them.

    Args:
        store: Where the versions lie.
        starts: Versions with the run that made each.

    Returns:
        `{"format", "starts", "versions": [{artifact, version, run_id, manifest, run, sha256}]}`, children before
        parents.

    Raises:
        StoreError: A version or run is gone.
        DamagedError: A manifest or run record cannot be read.
    """
    entries: dict[tuple[str, str, str], dict[str, Any]] = {}
    queue = deque((version.key, version.version, run) for version, run in starts)
    while queue:
        key, version, run_id = queue.popleft()
        name = "/".join(key)
        if (name, version, run_id) in entries:
            continue
        found = store.open(key, version)
        run = found.run(run_id)
        entries[name, version, run_id] = {
            "artifact": name,
            "version": version,
            "run_id": run_id,
            "manifest": found.manifest,
            "run": run,
            "sha256": seals(found, run_id),
        }
        queue += [(key_of(p["artifact"]), p["version"], p["run"]) for p in run["parents"]]
    return {
        "format": 1,
        "starts": [{"artifact": "/".join(v.key), "version": v.version, "run_id": run} for v, run in starts],
        "versions": list(entries.values()),
    }


def checked(links: Any, place: str) -> dict[str, Any]:
    """A chain that came from a file, once it has the form of one.

    Raises:
        DamagedError: It has not.
    """
    try:
        for entry in links["versions"]:
            _check(entry)
        for start in links["starts"]:
            _texts(start, "artifact", "version", "run_id")
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise DamagedError(place, f"it is not a chain of versions ({error!r}).", "Restore it from a copy.") from None
    return links


def _check(entry: dict[str, Any]) -> None:
    """Touch all that an audit reads of an entry."""
    _texts(entry, "artifact", "version", "run_id")
    _texts(entry["sha256"], "manifest", "run")
    manifest, run = entry["manifest"], entry["run"]
    content_root(manifest)
    for files in (manifest["tables"], manifest["files"], manifest["attached"], run["side"]):
        for facts in files.values():
            _texts(facts, "sha256")
    for table in manifest["tables"].values():
        _texts(table["roots"], "all")
        int(table["rows"])
    for parent in run["parents"]:
        _texts(parent, "artifact", "version", "run")
    _texts(run, "ended", "stage_version")
    _fields(run["code"], "commit", "dirty")
    dict(run["notes"].get("counts", {}).get("licences", {}))
    for gate in run["notes"].get("gates", []):
        _fields(gate, "gate", "passed")


def _fields(holder: dict[str, Any], *names: str) -> None:
    for name in names:
        if name not in holder:
            raise KeyError(name)


def _texts(holder: dict[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(holder[name], str):
            raise TypeError(f"{name} is {holder[name]!r}")


def key_of(text: str) -> Key:
    """The key written as `owner/artifact`."""
    owner, separator, artifact = text.partition("/")
    if not separator or not owner or not artifact:
        raise StoreError(text, "not an artifact.", "Write OWNER/ARTIFACT, for example finance/seed_set.")
    return owner, artifact


def content_root(manifest: dict[str, Any]) -> str:
    """The data version that a manifest's roots and hashes amount to."""
    return digest(
        {
            "tables": {name: entry["roots"] for name, entry in manifest["tables"].items()},
            "files": {name: entry["sha256"] for name, entry in manifest["files"].items()},
        }
    )[:32]
