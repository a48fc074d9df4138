"""What files say about each other: names that clash, references that lead nowhere, circles."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from distill_dagster.config import pipeline_checks, sample_checks, source_checks, teachers_checks
from distill_dagster.config.models import PipelineConfig, SourceConfig, Strict
from distill_dagster.config.problems import Key, Problem, relative
from distill_dagster.config.registry import nearest
from distill_dagster.config.yaml_reader import Document


@dataclass(frozen=True)
class Entry:
    """One valid file: its kind, the name it owns, its config, and where its keys stand."""

    kind: str
    name: str
    config: Strict
    document: Document


@dataclass
class Index:
    """Entries by kind and name, and the names that files with faults would have had."""

    broken: set[tuple[str, str]]
    by: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def names(self, kind: str) -> list[str]:
        """Names of that kind."""
        return list(self.by.get(kind, {}))

    def get(self, kind: str, name: str) -> Any:
        """The config of that kind and name, or None."""
        entry = self.by.get(kind, {}).get(name)
        return None if entry is None else entry.config

    def configs(self, kind: str) -> dict[str, Any]:
        """Configs of that kind by name."""
        return {name: entry.config for name, entry in self.by.get(kind, {}).items()}

    def unknown(self, kind: str, name: str) -> bool:
        """Does nothing have that name, not even a file with faults?"""
        if name in self.by.get(kind, {}):
            return False
        return not any(at in (kind, "*") and called in (name, "*") for at, called in self.broken)


def problems(entries: list[Entry], broken: set[tuple[str, str]], domains: Any = None) -> list[Problem]:
    """Every problem that takes more than one file, or what is installed, to see."""
    index = Index(broken)
    found: list[Problem] = []
    for entry in entries:
        first = index.by.setdefault(entry.kind, {}).setdefault(entry.name, entry)
        if first is not entry:
            found.append(_twice(entry, first))
    found += _shadowed(index)
    if domains is None and any(entry.kind == "source" for entry in entries):
        # The ground does not import the core; plugins are looked up by name, as blocks are.
        domains = importlib.import_module("distill_dagster.domains.registry").discover()
    for entry in entries:
        if isinstance(entry.config, SourceConfig):
            found += source_checks.problems(entry.config, entry.document, domains)
        elif isinstance(entry.config, PipelineConfig):
            tasks = _tasks(entry.config, index, domains)
            found += _references(entry.config, entry.document, index)
            found += _pairs(entry.config, entry.document, index)
            found += pipeline_checks.of_pipeline(entry.config, entry.document, tasks)
            teachers, prices = index.configs("teacher"), index.configs("prices")
            found += teachers_checks.problems(entry.config, entry.document, tasks, teachers, prices)
            source = index.get("source", entry.config.source)
            domain = domains.found.get(source.domain) if source is not None and domains is not None else None
            found += sample_checks.of_pipeline(entry.config, entry.document, source, domain)
        elif entry.kind == "teacher":
            found += pipeline_checks.of_teacher(entry.config, entry.document)
            found += sample_checks.of_teacher(entry.config, entry.document)
            found += _prices(entry.config, entry.document, index)
    found += _circles(index)
    return found


def _tasks(pipeline: PipelineConfig, index: Index, domains: Any) -> list[str] | None:
    """Task names of a pipeline's source; None where they cannot be known."""
    source = index.get("source", pipeline.source)
    if source is None or domains is None or source.domain not in domains.found:
        return None
    return source_checks.task_names(source, domains.found[source.domain])


def _own_key(entry: Entry) -> Key:
    """The key that gives an entry its name."""
    if ("name",) in entry.document.lines:
        return ("name",)
    return ("domain",) if entry.kind == "source" else ("source",)


def _twice(entry: Entry, first: Entry) -> Problem:
    hint = "Give one of them another `name`."
    if ("name",) not in entry.document.lines:
        hint = f"It takes its name from `{_own_key(entry)[0]}`; give it a `name` of its own."
    at = first.document
    reason = (
        f"two {entry.kind} files are named {entry.name!r}; the other is {relative(at.path)}:{at.line(_own_key(first))}."
    )
    return entry.document.problem(_own_key(entry), reason, hint)


def _shadowed(index: Index) -> Iterator[Problem]:
    """A pipeline may share the name of its own source, whose keys stand beside its own, and of no other."""
    for entry in index.by.get("pipeline", {}).values():
        other = index.by.get("source", {}).get(entry.name)
        if other is not None and isinstance(entry.config, PipelineConfig) and entry.config.source != entry.name:
            theirs = relative(other.document.path)
            reason = f"pipeline {entry.name!r} has the name of a source that is not its own, {theirs}."
            yield entry.document.problem(_own_key(entry), reason, "Asset keys start with it; give it another `name`.")


def _references(pipeline: PipelineConfig, document: Document, index: Index) -> Iterator[Problem]:
    wanted: list[tuple[str, str | None, Key]] = [
        ("source", pipeline.source, ("source",)),
        ("teacher", pipeline.teacher, ("teacher",)),
        ("pipeline", pipeline.data_from, ("data_from",)),
        ("pipeline", pipeline_checks.starts_from(pipeline), ("student", "base")),
    ]
    if pipeline.teachers is not None:
        wanted += [("teacher", name, ("teachers",)) for name in pipeline.teachers.names()]
    for kind, name, key in wanted:
        if name is not None and index.unknown(kind, name):
            yield document.problem(key, f"no {kind} is named {name!r}.", nearest(name, index.names(kind)))
    yield from _taught_by_weights(pipeline, document, index)
    other = index.get("pipeline", pipeline.data_from) if pipeline.data_from else None
    if other is not None and other.source != pipeline.source:
        reason = f"the data of pipeline {pipeline.data_from!r} is of source {other.source!r}, not {pipeline.source!r}."
        yield document.problem(("source",), reason, f"Write `source: {other.source}` and give it a `name`.")


def _taught_by_weights(pipeline: PipelineConfig, document: Document, index: Index) -> Iterator[Problem]:
    """Has the teacher weights here, where the student starts from them?"""
    owner, seen = pipeline, set[str]()
    while owner is not None and owner.data_from is not None and owner.data_from not in seen:
        seen.add(owner.data_from)
        owner = index.get("pipeline", owner.data_from)
    teacher = index.get("teacher", owner.teacher) if owner is not None and owner.teacher else None
    if pipeline.student.base == "teacher" and teacher is not None and teacher.backend not in ("transformers", "vllm"):
        reason = f"teacher {teacher.name!r} answers by backend {teacher.backend!r}: no weights of it are here."
        yield document.problem(("student", "base"), reason, "Start the student from a preset, a folder or a hub id.")


def _pairs(pipeline: PipelineConfig, document: Document, index: Index) -> Iterator[Problem]:
    """Does the pipeline that owns the data make preference pairs, where a recipe learns from them?"""
    term = pipeline_checks.term_on_pairs(pipeline.training)
    if term is None:
        return
    owner, seen = pipeline, {pipeline.key}
    while owner.data_from is not None:
        found = index.get("pipeline", owner.data_from)
        if found is None or found.key in seen:
            return
        owner = found
        seen.add(owner.key)
    if not pipeline_checks.compares(owner):
        whose = "`knowledge`" if owner is pipeline else f"`knowledge` of pipeline {owner.key!r}"
        reason = f"{term!r} learns from preference pairs, and no kind in {whose} compares answers."
        hint = "Add `{name: feedback, method: compare}` there."
        yield document.problem(("training", "objective", term), reason, hint)


def _prices(teacher: Any, document: Document, index: Index) -> Iterator[Problem]:
    """Is there a price of a teacher's model?"""
    if teacher.prices is None:
        return
    if index.unknown("prices", teacher.prices):
        hint = nearest(teacher.prices, index.names("prices"))
        yield document.problem(("prices",), f"no prices are named {teacher.prices!r}.", hint)
        return
    prices = index.get("prices", teacher.prices)
    models = {entry.model for entry in prices.entries} if prices is not None else {teacher.model}
    if teacher.model not in models:
        reason = f"prices {teacher.prices!r} have no price of model {teacher.model!r}."
        yield document.problem(("prices",), reason, nearest(teacher.model, models))


def _circles(index: Index) -> Iterator[Problem]:
    """Circles among pipelines, each reported once, at its first pipeline by name."""
    edges: dict[str, list[tuple[str, Key]]] = {}
    for name, entry in index.by.get("pipeline", {}).items():
        if isinstance(entry.config, PipelineConfig):
            ways = (
                (entry.config.data_from, ("data_from",)),
                (pipeline_checks.starts_from(entry.config), ("student", "base")),
            )
            edges[name] = [
                (to, key)
                for to, key in ways
                # One's own champion was there before; that is no circle.
                if to in index.by["pipeline"] and to is not None and (to, key[0]) != (name, "student")
            ]
    seen: set[frozenset[str]] = set()
    for start in sorted(edges):
        path = _way_back(start, edges)
        if path is not None and frozenset(path) not in seen:
            seen.add(frozenset(path))
            document = index.by["pipeline"][start].document
            key = next(key for to, key in edges[start] if to == path[1])
            reason = f"a circle: {' -> '.join(path)}."
            yield document.problem(
                key, reason, "A student cannot need itself before it is trained; start one elsewhere."
            )


def _way_back(start: str, edges: dict[str, list[tuple[str, Key]]]) -> list[str] | None:
    """The shortest path from a pipeline back to itself."""
    queue = [[start]]
    visited: set[str] = set()
    while queue:
        path = queue.pop(0)
        for to, _ in edges.get(path[-1], ()):
            if to == start:
                return [*path, to]
            if to not in visited:
                visited.add(to)
                queue.append([*path, to])
    return None
