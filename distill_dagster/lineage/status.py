"""What is stale, transitively: Dagster marks direct readers only, the manifests know the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distill_dagster.errors import DistillError, StoreError
from distill_dagster.lineage import changes
from distill_dagster.lineage.engine import action_key, current, reads_of
from distill_dagster.lineage.graph import Node, ordered
from distill_dagster.records.identity import digest
from distill_dagster.storage.store import Key, Store, Version, key_text


@dataclass(frozen=True)
class State:
    """How one artifact stands.

    `fresh`; `stale`: its own action changed, or it is incomplete; `downstream`: something above it is not fresh;
    `missing`.
    """

    key: Key
    state: str
    version: str | None
    reason: str = ""

    @property
    def fresh(self) -> bool:
        """True where a run would remake nothing here."""
        return self.state == "fresh"


def status(nodes: Mapping[Key, Node], store: Store) -> list[State]:
    """The state of every node, parents first.

    A node is *stale* when its action key, computed from its parents' heads, is not the one its head came from, or when
    what was made is incomplete, so that a run makes it again;
    *downstream* when a parent it reads is stale, so that it may be remade; *missing* when it was never made.
    """
    states: dict[Key, State] = {}
    for node in ordered(nodes):
        states[node.key] = _state(node, store, states)
    return list(states.values())


def _state(node: Node, store: Store, states: Mapping[Key, State]) -> State:
    head = store.head(node.key)
    if head is None:
        return State(node.key, "missing", None, "never materialized")
    if not store.has(node.key, head["version"], head["run"]):
        return State(node.key, "missing", None, f"version {head['version'][:12]} is gone from the store")
    above = [p.key for p in node.edges if p.key in states and not states[p.key].fresh]
    versions: dict[str, Version] = {}
    for parent in node.parents:
        parent_head = current(store, parent)
        if parent_head is None and parent.optional:
            continue
        if parent_head is None or not store.has(parent.key, parent_head["version"], parent_head["run"]):
            return State(node.key, "downstream", head["version"], f"{key_text(parent.key)} is missing")
        versions[parent.role] = store.open(parent.key, parent_head["version"])
    try:
        action = action_key(node, reads_of(node.parents, versions), node.outside())
    except DistillError as error:
        return State(node.key, "stale", head["version"], str(error))
    if action != head["action"]:
        return State(node.key, "stale", head["version"], _why(node, store, head, versions))
    if store.action(action) is None and (lacks := _lacks(node, store, head)):
        return State(node.key, "stale", head["version"], lacks)
    if above:
        parent = states[above[0]]  # what a downstream one says is where it begins
        why = parent.reason if parent.state == "downstream" else f"{key_text(above[0])} is {parent.state}"
        return State(node.key, "downstream", head["version"], why)
    return State(node.key, "fresh", head["version"])


def _lacks(node: Node, store: Store, head: Mapping[str, str]) -> str:
    """What the head's run calls incomplete; empty where it is whole, or nobody can tell."""
    try:
        return store.open(node.key, head["version"]).run(head["run"]).get("incomplete", "")
    except StoreError:
        return ""


def _why(node: Node, store: Store, head: Mapping[str, str], versions: Mapping[str, Version]) -> str:
    """What differs from the run that made the head."""
    try:
        run = store.open(node.key, head["version"]).run(head["run"])
    except StoreError as error:
        return str(error)
    if run["stage_version"] != node.version:
        return f"stage version {run['stage_version']} became {node.version}"
    before = {entry["role"]: entry for entry in run["parents"]}
    reads = reads_of(node.parents, versions)
    read = {role: entry["reads"] for role, entry in before.items()}
    moved = [key_text(p.key) for p in node.parents if read.get(p.role) != reads.get(p.role)]
    if moved:
        return f"{', '.join(moved)} changed"
    told = []
    if digest(run["config"]) != digest(node.config):
        told.append(f"config changed: {changes.changes(run['config'], node.config)}")
    if named := changes.files(run.get("outside", {}), node.outside()):
        told.append(f"data or model files changed: {named}")
    return "; ".join(told) or "what it is made from changed"
