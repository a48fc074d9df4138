"""What the stages of one source and one pipeline share: config, domain, tasks, folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill_dagster.config.models import (
    PipelineConfig,
    PricesConfig,
    SourceConfig,
    TeacherConfig,
    TeachersOptions,
    identity,
)
from distill_dagster.config.styles import StyleName
from distill_dagster.domains.base import Domain, Task
from distill_dagster.domains.specs import task_names, task_specs
from distill_dagster.storage.store import Version

#: The columns a stage needs to put a question and score an answer.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class SourceContext:
    """A source with its domain.

    Attributes:
        config: The YAML file's content.
        domain: The plugin.
        folder: Folder of the YAML file; data paths are relative to it.
        limit: At most this many records a task and part (a pilot), or None.
        styles: Prompt styles that its pipelines need beside `full` and `short`, sorted.
    """

    config: SourceConfig
    domain: Domain
    folder: Path
    limit: int | None = None
    styles: tuple[StyleName, ...] = ()

    @property
    def key(self) -> str:
        """Owner of the source's asset keys."""
        return self.config.key

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Tasks by name. A label task of a file source that declares no labels reads them from the data."""
        return {task.name: task for task in task_specs(self.config, self.domain, self.folder)}

    def known_tasks(self) -> list[str]:
        """Task names in report order; reads no data."""
        return task_names(self.config, self.domain)

    def identity(self, *leave_out: str) -> dict[str, Any]:
        """Identity config of the source, less some fields, with the versions of the domain's tasks."""
        kept = {name: value for name, value in identity(self.config).items() if name not in {*leave_out, "name"}}
        names = set(self.known_tasks())
        kept["task_versions"] = {task.name: task.version for task in self.domain.tasks if task.name in names}
        if self.limit is not None:
            kept["limit"] = self.limit
        return kept

    def compared(self) -> dict[str, Any]:
        """Identity config of a stage that asks which inputs are the same: context and choices count, where a file has
        them; empty where none has."""
        files = [*self.config.seeds, *self.config.evaluation]
        beside = any(data.columns.context or data.columns.choices for data in files)
        return {"same_input": "with context and choices"} if beside else {}

    def verifier(self, used: bool = True) -> dict[str, Any]:
        """Identity config of a stage that uses the domain's verifier; empty for its first version."""
        version = self.domain.verifier_version
        return {} if not used or version == "1" else {"verifier": version}


@dataclass(frozen=True)
class PipelineContext:
    """A pipeline with its source and teacher.

    Attributes:
        config: The YAML file's content.
        source: The source it names.
        teacher: Its teacher; of several, the first.
        data: Name of the pipeline that owns the data half: itself, or `data_from`.
        folder: Folder of the YAML file.
        teacher_folder: Folder of the teacher's YAML file; a model path is relative to it.
        namespace: Whose journal answers are shared in.
        prices: What the teacher's answers cost, where it names prices.
        teachers: How several teachers divide the work; None where there is one.
        panel: The same pipeline once for each of several teachers, as that teacher sees it: `teacher` is then one of
            them, and `panel` is empty.
    """

    config: PipelineConfig
    source: SourceContext
    teacher: TeacherConfig
    data: str
    folder: Path
    teacher_folder: Path
    namespace: str
    prices: PricesConfig | None = None
    teachers: TeachersOptions | None = None
    panel: tuple[PipelineContext, ...] = ()

    @property
    def asked(self) -> tuple[PipelineContext, ...]:
        """The pipeline as each of its teachers sees it; itself where there is one teacher."""
        return self.panel or (self,)

    @property
    def key(self) -> str:
        """Owner of the pipeline's asset keys."""
        return self.config.key

    @property
    def known_tasks(self) -> list[str]:
        """Names of the tasks this pipeline teaches, in report order; reads no data."""
        wanted = self.config.tasks
        return [name for name in self.source.known_tasks() if wanted is None or name in wanted]

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks this pipeline teaches."""
        return {name: self.source.tasks[name] for name in self.known_tasks}


def facts_of(row: Row) -> dict[str, Any]:
    """The generator's own numbers of a record; empty where it has none."""
    return json.loads(row["facts"]) if row.get("facts") else {}


def prompts_by(version: Version) -> dict[tuple[str, str], dict[str, Any]]:
    """Prompt rows by task and style."""
    return {(row["task"], row["style"]): row for row in version.table("prompt").to_pylist()}
