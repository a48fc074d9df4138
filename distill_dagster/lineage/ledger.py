"""The append-only ledger of events, each bound to the one before by its digest: an alias that moved (`promoted`), and
a newer report on the student that holds it (`examined`).

A hash chain without an outside anchor detects clumsy edits only: whoever owns the files can rebuild it, or cut its
tail. Print or store `anchor()` elsewhere and give it to `problems` to detect the rest.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import Any

from upath import UPath

from distill_dagster.errors import StoreError
from distill_dagster.records.identity import digest
from distill_dagster.storage.names import DamagedError, json_bytes, parsed
from distill_dagster.storage.store import Store

GENESIS = "0" * 64
#: How often `append` gives way to another writer before it gives up.
ATTEMPTS = 100

_FIELDS = ("sequence", "previous", "kind", "payload", "digest")
_NAME = re.compile(r"\d{8,}\.json")


class Ledger:
    """Events of one namespace, one numbered file each, so that two writers cannot take one number."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.base / ".ledger"

    def _paths(self) -> list[UPath]:
        found = self._listed()
        if found and len(found) <= _number(found[-1]):
            # A listing may miss an entry that came while it was read, and hold a later one. The next one misses none
            # of those before it, unless somebody took it away.
            last = _number(found[-1])
            found = [path for path in self._listed() if _number(path) <= last]
        return found

    def _listed(self) -> list[UPath]:
        if not self.folder.exists():
            return []
        return sorted((path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)), key=_number)

    def entries(self) -> Iterator[dict[str, Any]]:
        """All events, oldest first.

        Raises:
            DamagedError: An entry cannot be read.
        """
        for path in self._paths():
            yield _read(path)

    def append(self, kind: str, **payload: Any) -> dict[str, Any]:
        """Add an event after the last one; where another writer takes that place, after theirs.

        Raises:
            StoreError: The ledger cannot be written, or the payload is not JSON.
            DamagedError: The last entry cannot be read.
        """
        for _ in range(ATTEMPTS):
            paths = self._paths()
            last = _read(paths[-1]) if paths else None
            entry: dict[str, Any] = {
                "sequence": last["sequence"] + 1 if last else 0,
                "previous": last["digest"] if last else GENESIS,
                "kind": kind,
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "actor": os.environ.get("DISTILL_ACTOR") or os.environ.get("USER") or "unknown",
                "payload": payload,
            }
            path = self.folder / f"{entry['sequence']:08d}.json"
            try:
                entry["digest"] = digest(entry)
                data = json_bytes(entry)
            except (TypeError, ValueError) as error:
                raise StoreError(
                    f"ledger event {kind!r}", f"it is not JSON ({error}).", "Nothing was written."
                ) from None
            try:
                self.store.create(path, data)
            except FileExistsError:
                continue
            return entry
        raise StoreError(str(self.folder), "other writers kept taking the next ledger entry.", "Run again.")

    def anchor(self) -> str:
        """Number of entries and digest of the last one, to be kept outside the store."""
        paths = self._paths()
        return f"{len(paths)}:{_read(paths[-1])['digest'] if paths else GENESIS}"

    def problems(self, anchor: str | None = None) -> list[str]:
        """What does not hold along the chain; empty where all does.

        Args:
            anchor: What `anchor` gave earlier; entries before it that were cut or rebuilt are found out by it.
        """
        found: list[str] = []
        previous = GENESIS
        digests = [GENESIS]
        for number, path in enumerate(self._paths()):
            place = f"ledger entry {path.name}"
            try:
                entry = _read(path)
                body = {name: value for name, value in entry.items() if name != "digest"}
                if digest(body) != entry["digest"] or json_bytes(entry) != path.read_bytes():
                    found.append(f"{place}: its digest does not match its content")
                if (entry["previous"], entry["sequence"], path.name) != (previous, number, f"{number:08d}.json"):
                    found.append(f"{place}: it does not follow the entry before it")
                previous = entry["digest"]
            except (DamagedError, ValueError, TypeError) as error:
                found.append(f"{place}: it cannot be read ({error})")
                previous = ""
            digests.append(previous)
        if anchor is not None:
            count, _, expected = anchor.partition(":")
            if not count.isdigit() or int(count) >= len(digests) or digests[int(count)] != expected:
                found.append(f"the ledger does not hold the {count} entries that its anchor vouches for")
        return found

    def promotions(self, pipeline: str, alias: str) -> list[dict[str, Any]]:
        """Promotions of a pipeline's alias, oldest first.

        Raises:
            DamagedError: An entry cannot be read.
        """
        return [
            entry
            for entry in self.entries()
            if entry["kind"] == "promoted"
            and entry["payload"].get("pipeline") == pipeline
            and entry["payload"].get("alias") == alias
        ]

    def reports(self, pipeline: str, version: str) -> list[str]:
        """Versions of the reports on a deployed student that holds or held an alias, oldest first.

        Raises:
            DamagedError: An entry cannot be read.
        """
        return [
            entry["payload"]["report"]
            for entry in self.entries()
            if entry["kind"] in ("promoted", "examined")
            and entry["payload"].get("pipeline") == pipeline
            and entry["payload"].get("version") == version
        ]


def _number(path: UPath) -> int:
    return int(path.name.removesuffix(".json"))


def _read(path: UPath) -> dict[str, Any]:
    entry = parsed(path.read_bytes(), f"ledger entry {path.name}", _FIELDS)
    if not isinstance(entry["payload"], dict) or not isinstance(entry["sequence"], int):
        raise DamagedError(f"ledger entry {path.name}", "it is not an event.", "Restore it from a copy.")
    return entry
