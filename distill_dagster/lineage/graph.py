"""Nodes: what an artifact is made of, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_dagster.records.identity import digest
from distill_dagster.storage.store import Key, Store, Version

#: The version to read, as `{version, run}`; None where there is none.
Resolve = Callable[[Store], Mapping[str, str] | None]


@dataclass(frozen=True)
class Parent:
    """One input of a node.

    Attributes:
        role: What the input is to the stage: seeds, prompts, teacher, data, start, …
        key: Artifact it comes from.
        parts: Table → parts that are read, so that a change elsewhere in the artifact is no change here; None: all.
        resolve: Finds an earlier version to read, such as one's own champion; None: the newest. It is no edge of the
            graph, since that version was there before.
        optional: What is not there yet is simply not read; once it is there, it counts like any other input.
    """

    role: str
    key: Key
    parts: Mapping[str, tuple[str, ...]] | None = None
    resolve: Resolve | None = None
    optional: bool = False


def anything(inputs: Mapping[str, Version], runs: Mapping[str, str]) -> None:
    """Lets every input in."""


@dataclass(frozen=True)
class Node:
    """One artifact of the graph.

    Attributes:
        key: Owner and artifact.
        version: Stage version, bumped by a person.
        parents: Inputs.
        config: Identity config known from the files alone.
        make: `make(job)` writes the content into `job.draft`.
        outside: `outside()` gives the identity of what lies outside store and config (data files, model folders);
            called when the node runs or its status is asked, never at load.
        admit: `admit(inputs, runs)` raises GateError for input versions that may not be consumed. It is asked whenever
            the node is materialized, known action or not.
        title: A few words for people.
    """

    key: Key
    version: str
    parents: tuple[Parent, ...]
    config: Mapping[str, Any]
    make: Callable[[Any], None]
    outside: Callable[[], Mapping[str, Any]] = field(default=dict)
    title: str = ""
    admit: Callable[[Mapping[str, Version], Mapping[str, str]], None] = anything

    @property
    def edges(self) -> tuple[Parent, ...]:
        """Inputs that are made before this node in the same run: all but earlier versions."""
        return tuple(parent for parent in self.parents if parent.resolve is None)

    @property
    def code_version(self) -> str:
        """Stage version and a digest of the identity config: what Dagster compares."""
        return f"{self.version}-{digest(dict(self.config))[:12]}"


def ordered(nodes: Mapping[Key, Node]) -> list[Node]:
    """Nodes with every parent before its readers; the order is stable."""
    done: dict[Key, Node] = {}

    def visit(key: Key, trail: Sequence[Key]) -> None:
        if key in done or key not in nodes:
            return
        if key in trail:
            raise ValueError(f"circle: {' -> '.join('/'.join(k) for k in [*trail, key])}")
        for parent in nodes[key].edges:
            visit(parent.key, [*trail, key])
        done[key] = nodes[key]

    for key in nodes:
        visit(key, [])
    return list(done.values())


def descendants(nodes: Mapping[Key, Node], key: Key) -> set[Key]:
    """Keys of every node that reads `key`, directly or through others."""
    found: set[Key] = set()
    for node in ordered(nodes):
        if any(parent.key == key or parent.key in found for parent in node.edges):
            found.add(node.key)
    return found
