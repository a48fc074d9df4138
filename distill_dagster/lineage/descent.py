"""Who read a version: the models that trained on it, and the aliases they held."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distill_dagster.lineage.ledger import Ledger
from distill_dagster.storage.store import Key, Store, key_text

if TYPE_CHECKING:
    from distill_dagster.lineage.threads import Thread

#: Artifacts that a model is in.
MODELS = ("teacher_model", "student_checkpoint", "control_checkpoint", "initial_student", "deployed_student")


@dataclass(frozen=True)
class Reader:
    """A run that read a version, in a role."""

    key: Key
    version: str
    run: str
    role: str


class Readers:
    """Every run of a store by what it read. Runs are read once, when the first question comes."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @cached_property
    def _by_parent(self) -> dict[tuple[str, str], list[Reader]]:
        found: dict[tuple[str, str], list[Reader]] = defaultdict(list)
        for key in self.store.artifacts():
            if key[1] not in MODELS:
                continue
            for version in self.store.versions(key):
                for record in self.store.open(key, version).runs():
                    for parent in record["parents"]:
                        if parent.get("reads") == {}:  # it only has to be there
                            continue
                        reader = Reader(key, version, record["id"], parent["role"])
                        found[parent["artifact"], parent["version"]].append(reader)
        return found

    @cached_property
    def _promotions(self) -> list[dict[str, Any]]:
        return [entry for entry in Ledger(self.store).entries() if entry["kind"] == "promoted"]

    def of(self, key: Key, version: str, role: str) -> list[Reader]:
        """Runs that read a version in a role; of several runs that made one version, the first."""
        found: dict[tuple[Key, str], Reader] = {}
        for reader in self._by_parent.get((key_text(key), version), ()):
            if reader.role == role:
                found.setdefault((reader.key, reader.version), reader)
        return list(found.values())

    def aliases(self, student: str) -> list[dict[str, Any]]:
        """Aliases that a student held or holds, by when it got them."""
        last = {(entry["payload"]["pipeline"], entry["payload"]["alias"]): entry for entry in self._promotions}
        return [
            {
                "alias": f"{entry['payload']['pipeline']}@{entry['payload']['alias']}",
                "since": entry["at"],
                "now": last[entry["payload"]["pipeline"], entry["payload"]["alias"]] is entry,
            }
            for entry in self._promotions
            if entry["payload"].get("student") == student
        ]

    def students(
        self, thread: Thread, examples: Sequence[dict[str, Any]], seeds: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Models that trained on some examples, on pairs of some seeds, or on seeds of the teacher's part; and
        those that started from such a model."""
        queue: list[tuple[Reader, str]] = []
        if thread.data is not None and examples:
            gold = any(row["origin"] == "gold" for row in examples)
            readers = self.of(thread.data.version.key, thread.data.version.version, "data")
            queue += [(reader, "its data") for reader in readers if gold or reader.key[1] != "control_checkpoint"]
        queue += [(reader, "its preference pairs") for reader in self._on_pairs(thread, seeds)]
        if any(row.get("part") == "teacher" for row in seeds):
            for at in dict.fromkeys(at for at in (thread.seeds, thread.asked) if at is not None):
                readers = self.of(at.version.key, at.version.version, "seeds")
                queue += [(reader, "fitted on it") for reader in readers if self._fitted(reader)]
        told: dict[tuple[Key, str], dict[str, Any]] = {}
        while queue:
            reader, through = queue.pop(0)
            if (reader.key, reader.version) in told:
                continue
            entry = {"artifact": key_text(reader.key), "version": reader.version, "run": reader.run, "through": through}
            told[reader.key, reader.version] = entry | {"aliases": []}
            if reader.key[1] == "student_checkpoint":
                told[reader.key, reader.version]["aliases"] = self.aliases(reader.version)
                queue += self._next(reader, "student", "its weights")
            elif reader.key[1] in ("deployed_student", "initial_student"):
                queue += self._next(reader, "start", "its start")
        return list(told.values())

    def _on_pairs(self, thread: Thread, seeds: Sequence[dict[str, Any]]) -> list[Reader]:
        """Runs that trained on pairs of some seeds, made from the answers of a thread."""
        wanted = sorted({row["record_id"] for row in seeds})
        if thread.outputs is None or not wanted:
            return []
        outputs = thread.outputs.version
        found: list[Reader] = []
        for key in self.store.artifacts():
            if key[1] != "preference_pairs":
                continue
            for name in self.store.versions(key):
                version = self.store.open(key, name)
                parents = [entry for record in version.runs() for entry in record["parents"]]
                asked = {entry["version"] for entry in parents if entry["artifact"] == key_text(outputs.key)}
                mine = [("seed_record_id", "in", wanted)]
                if outputs.version in asked and version.table("preference", ["seed_record_id"], mine).num_rows:
                    found += self.of(key, name, "pairs")
        return found

    def _next(self, reader: Reader, role: str, through: str) -> list[tuple[Reader, str]]:
        return [(other, through) for other in self.of(reader.key, reader.version, role)]

    def _fitted(self, reader: Reader) -> bool:
        if reader.key[1] != "teacher_model":
            return False
        return "training" in self.store.open(reader.key, reader.version).run(reader.run)["notes"]


def first_paid(readers: Readers, request_key: str) -> str | None:
    """The run that first sent a question, as `owner/artifact@version run`; None where no sealed version has it."""
    store = readers.store
    found: list[tuple[str, str]] = []
    for key in store.artifacts():
        if key[1] != "teacher_outputs":
            continue
        for version in store.versions(key):
            opened = store.open(key, version)
            for record in opened.runs():
                if "call.parquet" not in record["side"]:
                    continue
                wanted = [("request_key", "==", request_key), ("reused", "==", False)]
                if opened.side_table(record["id"], "call", ["call_no"], wanted).num_rows:
                    found.append((record["id"], f"{opened} run {record['id']}"))
    return min(found)[1] if found else None
