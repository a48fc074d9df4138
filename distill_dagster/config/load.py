"""Reading a configuration folder: every YAML file in it, validated on its own and against the others.

All faults are collected before any is raised, so that one round of mending is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill_dagster.config import faults, references
from distill_dagster.config.models import (
    KINDS,
    PipelineConfig,
    PricesConfig,
    SourceConfig,
    Strict,
    TeacherConfig,
    TermsConfig,
)
from distill_dagster.config.problems import Problem, ProjectError
from distill_dagster.config.references import Entry
from distill_dagster.config.registry import nearest
from distill_dagster.config.yaml_reader import Document, read

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class ProjectConfig:
    """What a configuration folder says, by name.

    Attributes:
        folder: The folder that was read.
        sources, pipelines, teachers, prices, terms: Configs of each kind by name; in the order of the files.
        files: The file of each, by kind and name.
    """

    folder: Path
    sources: Mapping[str, SourceConfig] = field(default_factory=dict)
    pipelines: Mapping[str, PipelineConfig] = field(default_factory=dict)
    teachers: Mapping[str, TeacherConfig] = field(default_factory=dict)
    prices: Mapping[str, PricesConfig] = field(default_factory=dict)
    terms: Mapping[str, TermsConfig] = field(default_factory=dict)
    files: Mapping[tuple[str, str], Path] = field(default_factory=dict)

    def file_of(self, kind: str, name: str) -> Path:
        """Absolute path of the file that says so; KeyError where none does."""
        return self.files[kind, name]


def load_project(config_dir: Path, domains: Any = None) -> ProjectConfig:
    """Read and validate a configuration folder.

    Args:
        config_dir: Folder with YAML files at any depth; hidden folders are passed over.
        domains: What `domains.registry.discover` found; found anew where left out.

    Raises:
        ProjectError: A ConfigError that lists every problem.
    """
    project, problems = examine(config_dir, domains)
    if problems:
        raise ProjectError(Path(config_dir), problems)
    return project


def examine(config_dir: Path, domains: Any = None) -> tuple[ProjectConfig, list[Problem]]:
    """What the folder says as far as it can be read, and every problem in it, by file and line."""
    folder = Path(config_dir)
    if not folder.is_dir():
        return ProjectConfig(folder), [Problem(folder, 0, "", "no such folder.", "Give the folder of the YAML files.")]
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        return ProjectConfig(folder), [Problem(folder, 0, "", "the folder holds no YAML file.")]
    problems: list[Problem] = []
    entries: list[Entry] = []
    broken: set[tuple[str, str]] = set()
    for path in files:
        document = read(path)
        if isinstance(document, Problem):
            problems.append(document)
            # What the file would have named is not known, so nothing can be called unknown.
            broken.add(("*", "*"))
            continue
        config = _validate(document, problems)
        if config is None:
            broken.update(_claims(document))
        else:
            entries.append(Entry(config.kind, _name(config), config, document))  # pyright: ignore[reportAttributeAccessIssue]
    problems += references.problems(entries, broken, domains)
    return _project(folder, entries), sorted(set(problems))


def _validate(document: Document, problems: list[Problem]) -> Strict | None:
    """The model of a document, or None with the reasons added."""
    value = document.value
    if not isinstance(value, dict):
        problems.append(document.problem((), "the file must hold keys with values.", "The first one is `kind`."))
        return None
    kind = value.get("kind")
    if "kind" not in value:
        problems.append(document.problem((), "the file has no `kind`.", f"It is one of {', '.join(KINDS)}."))
        return None
    if not isinstance(kind, str) or kind not in KINDS:
        problems.append(document.problem(("kind",), f"unknown kind {kind!r}.", nearest(str(kind), KINDS)))
        return None
    try:
        return KINDS[kind].model_validate(value)
    except ValidationError as error:
        problems += faults.problems(error, KINDS[kind], document)
        return None


def _name(config: Strict) -> str:
    return str(config.key if isinstance(config, (SourceConfig, PipelineConfig)) else getattr(config, "name", ""))


def _claims(document: Document) -> set[tuple[str, str]]:
    """Kind and name that a file with faults would have had, so that references to it are no further fault."""
    value = document.value if isinstance(document.value, dict) else {}
    kind = str(value.get("kind", "*"))
    default = {"source": "domain", "pipeline": "source"}.get(kind, "name")
    name = value.get("name") or value.get(default)
    return {(kind if kind in KINDS else "*", name if isinstance(name, str) else "*")}


def _project(folder: Path, entries: list[Entry]) -> ProjectConfig:
    groups: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    files: dict[tuple[str, str], Path] = {}
    for entry in entries:
        groups[entry.kind].setdefault(entry.name, entry.config)
        files.setdefault((entry.kind, entry.name), entry.document.path.absolute())
    return ProjectConfig(
        folder=folder,
        sources=groups["source"],
        pipelines=groups["pipeline"],
        teachers=groups["teacher"],
        prices=groups["prices"],
        terms=groups["terms"],
        files=files,
    )
