"""Threads: the versions that one filtering run joined, so that the row numbers in its tables mean something.

Row numbers join tables of one version. A decision's `candidate_no` is a row of the answers that its run read, and an
example's `seed_no` a row of the seeds that its run read; which versions those were stands in the run record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from distill_dagster.errors import StoreError
from distill_dagster.lineage.chain import key_of
from distill_dagster.storage.store import Key, Store, Version, key_text


class At(NamedTuple):
    """A version and the run that made it."""

    version: Version
    run: str

    @property
    def record(self) -> dict[str, Any]:
        """The run record."""
        return self.version.run(self.run)

    def parent(self, role: str) -> At | None:
        """What the run read in that role; None where it read nothing, or where that is gone from the store."""
        for entry in self.record["parents"]:
            if entry["role"] == role:
                key = key_of(entry["artifact"])
                if self.version.store.has(key, entry["version"], entry["run"]):
                    return At(self.version.store.open(key, entry["version"]), entry["run"])
        return None

    def table(self, name: str, filters: Any = None, columns: list[str] | None = None) -> pa.Table | None:
        """Rows of a content table, or of a side table of this run; None where it has neither."""
        if name in self.version.manifest["tables"]:
            return self.version.table(name, columns=columns, filters=filters)
        if f"{name}.parquet" in self.record["side"]:
            return self.version.side_table(self.run, name, columns=columns, filters=filters)
        return None

    def rows(self, name: str, filters: Any = None) -> list[dict[str, Any]]:
        """Rows of a table as dictionaries; none where it has no such table."""
        found = self.table(name, filters)
        return [] if found is None else found.to_pylist()


@dataclass(frozen=True)
class Thread:
    """What one run joined.

    Attributes:
        data: The filtered data set; None where nothing was filtered yet.
        outputs: The teacher's answers.
        seeds: The seed set that numbers in `data` refer to.
        asked: The seed set that numbers in `outputs` refer to; an earlier version, or the same.
    """

    data: At | None
    outputs: At | None
    seeds: At | None
    asked: At | None

    @property
    def source(self) -> str:
        """Owner of the seed set; empty where it is gone."""
        found = self.seeds or self.asked
        return found.version.key[0] if found else ""

    @property
    def name(self) -> str:
        """The newest artifact of the thread, with its version."""
        found = self.data or self.outputs or self.seeds
        return str(found.version) if found else ""


def newest(store: Store, pipeline: str | None = None) -> list[Thread]:
    """A thread for the newest data set of each pipeline, or of one; answers and seeds that nobody read yet follow.

    Raises:
        StoreError: The pipeline has neither data nor answers.
    """
    heads = {key: _head(store, key) for key in store.artifacts()}
    return _gathered({key: [at] for key, at in heads.items() if at is not None}, _owner(heads, pipeline), pipeline)


def every(store: Store, pipeline: str | None = None) -> list[Thread]:
    """Threads of every sealed version and run, newest run first."""
    found: dict[Key, list[At]] = {}
    for key in store.artifacts():
        runs = [
            At(store.open(key, version), run) for version in store.versions(key) for run in _runs(store, key, version)
        ]
        found[key] = sorted(runs, key=lambda at: at.run, reverse=True)
    heads = {key: runs[0] for key, runs in found.items() if runs}
    return _gathered(found, _owner(heads, pipeline), pipeline)


def _runs(store: Store, key: Key, version: str) -> Iterator[str]:
    for record in store.open(key, version).runs():
        yield record["id"]


def _head(store: Store, key: Key) -> At | None:
    head = store.head(key)
    return None if head is None else At(store.open(key, head["version"]), head["run"])


def _owner(heads: dict[Key, At | None] | dict[Key, At], pipeline: str | None) -> str | None:
    """Who owns the data that a pipeline's student reads: the pipeline itself, or the one it takes its data from."""
    if pipeline is None or any((pipeline, name) in heads for name in ("filtered_dataset", "teacher_outputs")):
        return pipeline
    student = heads.get((pipeline, "student_checkpoint"))
    for entry in student.record["parents"] if student else ():
        if entry["role"] == "data":
            return key_of(entry["artifact"])[0]
    known = sorted({owner for owner, name in heads if name in ("filtered_dataset", "student_checkpoint")})
    raise StoreError(
        pipeline,
        "the store has neither data nor answers of such a pipeline.",
        f"It has {', '.join(known)}." if known else "Materialize one first.",
    )


def _gathered(runs: dict[Key, list[At]], owner: str | None, pipeline: str | None) -> list[Thread]:
    def of(artifact: str) -> Iterator[At]:
        for key, found in runs.items():
            if key[1] == artifact and (pipeline is None or key[0] == owner):
                yield from found

    threads: list[Thread] = []
    seen: set[tuple[str, str]] = set()
    for data in of("filtered_dataset"):
        outputs, seeds = data.parent("outputs"), data.parent("seeds")
        threads.append(Thread(data, outputs, seeds, (outputs and outputs.parent("seeds")) or seeds))
    seen |= {_id(at) for thread in threads for at in (thread.outputs, thread.seeds, thread.asked) if at}
    for outputs in of("teacher_outputs"):
        if _id(outputs) not in seen:
            asked = outputs.parent("seeds")
            threads.append(Thread(None, outputs, asked, asked))
            seen |= {_id(asked)} if asked else set()
    if pipeline is None:
        threads += [Thread(None, None, seeds, seeds) for seeds in of("seed_set") if _id(seeds) not in seen]
    return threads


def _id(at: At) -> tuple[str, str]:
    return key_text(at.version.key), at.version.version
