"""Making a node's version, or finding that it is already made.

The action key is the digest of stage version, identity config, what lies outside, and the roots of the parts
actually read. A known key returns its version without work, whoever asks: command line, UI, or notebook. What a stage
calls incomplete is sealed, but does not become known: the next run makes it again.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from distill_dagster.errors import GateError, StoreError
from distill_dagster.lineage import laws
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.lineage.run import code_state, environment, new_run_id
from distill_dagster.records.identity import digest
from distill_dagster.storage.atomic import store_error
from distill_dagster.storage.lease import lease
from distill_dagster.storage.store import Draft, Key, Store, Version, key_text

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Told how far a stage is: steps done, steps in all (None: unknown), and a few words."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Report progress."""
        ...


def silent(done: int, total: int | None, note: str = "") -> None:
    """Progress nobody watches."""


def no_session() -> AbstractContextManager[dict[str, str]]:
    """A training process that reports to nobody but its metrics file."""
    return nullcontext({})


@dataclass
class Services:
    """What surrounds a stage and is not its input: folders, progress, and how a training process is started.

    `wait` is how many seconds a stage waits for another process that is making the same artifact.
    """

    state: Path
    progress: Progress = silent
    start: Callable[..., Any] | None = None
    tags: dict[str, Any] = field(default_factory=dict)
    training_session: Callable[[], AbstractContextManager[dict[str, str]]] = no_session
    wait: float = 0.0


@dataclass
class Job:
    """One stage at work.

    Attributes:
        node: What is being made.
        draft: Where content goes.
        inputs: Parents' versions by role.
        work: A folder that outlives a crash; the same action finds it again.
        outside: What lies outside the store, as it was when the action was named.
        notes: Counts, metrics and costs of this run, kept in its run record.
        looks: EGRESS rows of the questions asked so far; the stage seals them with its calls.
        incomplete: What is missing that another run may bring, in a few words; empty where nothing is.
    """

    node: Node
    store: Store
    draft: Draft
    inputs: dict[str, Version]
    input_runs: dict[str, str]
    work: Path
    services: Services
    outside: Mapping[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    looks: list[dict[str, Any]] = field(default_factory=list)
    incomplete: str = ""

    @property
    def progress(self) -> Progress:
        """Where to report progress."""
        return self.services.progress


@dataclass(frozen=True)
class Made:
    """What a materialization gave.

    Attributes:
        version: The version that is now the head.
        run: Id of the run that made it.
        reused: True where a known action key answered and nothing ran.
        seconds: Wall time.
    """

    node: Node
    version: Version
    run: str
    action: str
    reused: bool
    seconds: float

    @property
    def record(self) -> dict[str, Any]:
        """The run record."""
        return self.version.run(self.run)


def action_key(node: Node, reads: Mapping[str, Any], outside: Mapping[str, Any]) -> str:
    """Identity of an action, 64 hex digits."""
    return digest(
        {
            "artifact": key_text(node.key),
            "version": node.version,
            "config": dict(node.config),
            "outside": dict(outside),
            "reads": dict(reads),
        }
    )


def head_version(store: Store, key: Key) -> tuple[Version, str] | None:
    """Newest version of an artifact and the run that made it."""
    head = store.head(key)
    if head is None:
        return None
    return store.open(key, head["version"]), head["run"]


def current(store: Store, parent: Parent) -> Mapping[str, str] | None:
    """`{version, run}` of an input now: what it resolves to, or the artifact's head; None where there is none."""
    return store.head(parent.key) if parent.resolve is None else parent.resolve(store)


def read_parents(node: Node, store: Store) -> tuple[dict[str, Version], dict[str, str]]:
    """Versions and runs of a node's parents.

    Raises:
        StoreError: A parent was never materialized.
    """
    versions: dict[str, Version] = {}
    runs: dict[str, str] = {}
    for parent in node.parents:
        found = current(store, parent)
        if found is None and parent.optional:
            continue
        if found is None and parent.resolve is not None:
            raise StoreError(
                key_text(node.key),
                f"{key_text(parent.key)} has no earlier version to start from.",
                "Train once from another base, then start from what came out.",
            )
        if found is None:
            raise StoreError(
                key_text(node.key),
                f"its input {key_text(parent.key)} was never materialized.",
                f"Run `distill-dagster run {node.key[0]}`, or materialize {key_text(parent.key)} first.",
            )
        versions[parent.role], runs[parent.role] = store.open(parent.key, found["version"]), found["run"]
    return versions, runs


def reads_of(parents: tuple[Parent, ...], versions: Mapping[str, Version]) -> dict[str, Any]:
    """Roots of what is read, by role; an optional input that is not there has none."""
    return {
        p.role: versions[p.role].roots(dict(p.parts) if p.parts is not None else None)
        for p in parents
        if p.role in versions
    }


def hold(
    store: Store, key: Key, leases: Path, wait: float = 0.0, waiting: Callable[[str], None] | None = None
) -> AbstractContextManager[None]:
    """The lease on making an artifact of a store; `wait` and `waiting` as `lease` has them.

    Raises:
        LeaseError: Another process is making it.
    """
    return lease(leases, f"{store.scope}/{key_text(key)}", wait, waiting)


def materialize(node: Node, store: Store, services: Services) -> Made:
    """Make a node's version from its parents' heads, or return the version its action is known to make.

    Raises:
        LeaseError: Another process is making this artifact, and does so still after `services.wait` seconds.
        GateError: An input may not be consumed.
        StoreError: A place cannot be read or written, or the disk is full.
        DistillError: What the stage reports; earlier versions stay as they are.
    """
    try:
        return _materialize(node, store, services)
    except OSError as error:
        raise store_error(error, error.filename or str(store.base)) from error


def _materialize(node: Node, store: Store, services: Services) -> Made:
    started = time.time()

    def waiting(held: str) -> None:
        services.progress(0, None, f"waits: {key_text(node.key)} is {held}")

    with hold(store, node.key, services.state / "leases", services.wait, waiting):
        versions, runs = read_parents(node, store)
        node.admit(versions, runs)
        outside = node.outside()
        reads = reads_of(node.parents, versions)
        action = action_key(node, reads, outside)
        work = services.state.joinpath("work", *store.scope.split("/"), action[:32])
        known = store.action(action)
        if known is not None and (known["owner"], known["artifact"]) == node.key:
            version = store.open(node.key, known["version"])
            if store.head(node.key) != {"version": known["version"], "run": known["run"], "action": action}:
                store.move_head(node.key, known["version"], known["run"], action)
            shutil.rmtree(work, ignore_errors=True)  # left where a run was killed between sealing and clearing
            return Made(node, version, known["run"], action, True, time.time() - started)
        run_id = new_run_id()
        draft = store.draft(node.key)
        job = Job(node, store, draft, versions, runs, work, services, outside)
        try:
            node.make(job)
            laws.accounted(key_text(node.key), job.looks)
            version = store.seal(
                draft,
                {
                    "id": run_id,
                    "action": action,
                    "artifact": key_text(node.key),
                    "stage_version": node.version,
                    "config": dict(node.config),
                    "outside": dict(outside),
                    "parents": [
                        {
                            "role": p.role,
                            "artifact": key_text(p.key),
                            "version": versions[p.role].version,
                            "run": runs[p.role],
                            "reads": reads[p.role],
                        }
                        for p in node.parents
                        if p.role in versions
                    ],
                    "notes": job.notes,
                    **({"incomplete": job.incomplete} if job.incomplete else {}),
                    "started": _utc(started),
                    "ended": _utc(time.time()),
                    "code": code_state(),
                    "environment": environment(),
                    "tags": services.tags,
                },
            )
        except BaseException:
            draft.discard()
            raise
        shutil.rmtree(work, ignore_errors=True)
        return Made(node, version, run_id, action, False, time.time() - started)


def require(passed: bool, node: Node, reason: str, next_step: str) -> None:
    """Raise GateError unless a gate passed."""
    if not passed:
        raise GateError(key_text(node.key), reason, next_step)


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
