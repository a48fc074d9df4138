"""A project: its config, domains and store, and the graph of nodes they amount to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from distill_dagster.config.load import ProjectConfig, load_project
from distill_dagster.config.registry import nearest
from distill_dagster.config.styles import STYLES, StyleName
from distill_dagster.domains.registry import Domains, discover
from distill_dagster.errors import ConfigError
from distill_dagster.knowledge.base import load_kind
from distill_dagster.lineage.engine import Made, Services, materialize
from distill_dagster.lineage.graph import Node, descendants, ordered
from distill_dagster.settings import Settings
from distill_dagster.stages import (
    DATA_ARTIFACTS,
    STUDENT_ARTIFACTS,
    control_checkpoint,
    deployed_student,
    eval_report,
    eval_set,
    filtered_dataset,
    initial_student,
    preference_pairs,
    prompt_set,
    seed_set,
    student_checkpoint,
    teacher_model,
    teacher_outputs,
    teacher_signals,
)
from distill_dagster.stages.context import PipelineContext, SourceContext
from distill_dagster.storage.store import Key, Store, key_text

SOURCE_STAGES = {"seed_set": seed_set, "eval_set": eval_set, "prompt_set": prompt_set}
PIPELINE_STAGES = {
    "teacher_model": teacher_model,
    "teacher_outputs": teacher_outputs,
    "filtered_dataset": filtered_dataset,
    "preference_pairs": preference_pairs,
    "initial_student": initial_student,
    "student_checkpoint": student_checkpoint,
    "control_checkpoint": control_checkpoint,
    "eval_report": eval_report,
    "deployed_student": deployed_student,
}


class Project:
    """Config files, domain plugins and a store.

    Args:
        settings: Folders; from the environment by default.
        limit: Pilot: at most this many records a task and part, in a store of its own, off the record.

    Raises:
        ConfigError: The files say something that cannot be.
    """

    def __init__(self, settings: Settings | None = None, limit: int | None = None) -> None:
        self.settings = settings or Settings.from_environment()
        self.limit = limit
        self.domains: Domains = discover()
        self.config: ProjectConfig = load_project(self.settings.config, self.domains)
        state = self.settings.state
        root: str | Path = self.settings.store if limit is None else state / "pilot" / "store"
        self.state = state if limit is None else state / "pilot"
        self.store = Store(root, self.settings.namespace, self.settings.prefix, cache=state / "cache")

    @cached_property
    def sources(self) -> dict[str, SourceContext]:
        """Sources by name."""
        return {
            name: SourceContext(
                config,
                self.domains.get(config.domain),
                self.config.file_of("source", name).parent,
                self.limit,
                self._styles(name),
            )
            for name, config in self.config.sources.items()
        }

    def _styles(self, source: str) -> tuple[StyleName, ...]:
        """Prompt styles that kinds of knowledge of a source's pipelines need beside the usual ones."""
        blocks = [
            block
            for pipeline in self.config.pipelines.values()
            if pipeline.source == source and pipeline.data_from is None
            for block in pipeline.knowledge
        ]
        wanted = set().union(*(load_kind(block).styles() for block in blocks))
        return tuple(style for style in STYLES if style in wanted)

    @cached_property
    def pipelines(self) -> dict[str, PipelineContext]:
        """Pipelines by name."""
        return {name: self._pipeline(name) for name in self.config.pipelines}

    def _pipeline(self, name: str) -> PipelineContext:
        config = self.config.pipelines[name]
        data, owner = name, config
        while owner.data_from is not None:
            data = owner.data_from
            owner = self.config.pipelines[data]
        teacher = owner.teacher or ""
        return PipelineContext(
            config=config,
            source=self.sources[owner.source],
            teacher=self.config.teachers[teacher],
            data=data,
            folder=self.config.file_of("pipeline", name).parent,
            teacher_folder=self.config.file_of("teacher", teacher).parent,
            namespace=self.settings.namespace,
            prices=self.config.prices.get(self.config.teachers[teacher].prices or ""),
        )

    @cached_property
    def nodes(self) -> dict[Key, Node]:
        """Every artifact of the project, parents before their readers."""
        found: dict[Key, Node] = {}
        for source in self.sources.values():
            for stage in SOURCE_STAGES.values():
                node = stage.node(source)
                found[node.key] = node
        for pipeline in self.pipelines.values():
            own = STUDENT_ARTIFACTS
            if pipeline.data == pipeline.key:
                own = (*DATA_ARTIFACTS, *preference_pairs.where_used(pipeline), *STUDENT_ARTIFACTS)
            for artifact in own:
                node = PIPELINE_STAGES[artifact].node(pipeline)
                found[node.key] = node
            if pipeline.data == pipeline.key and (want := self._signals(pipeline.key)) is not None:
                node = teacher_signals.node(pipeline, want)
                found[node.key] = node
        return {node.key: node for node in ordered(found)}

    def _signals(self, data: str) -> teacher_signals.Wanted | None:
        """What the pipelines that read the data of one need of its teacher beyond text."""
        readers = [other.config.training for other in self.pipelines.values() if other.data == data]
        return teacher_signals.wanted(readers)

    def pipeline(self, name: str) -> PipelineContext:
        """A pipeline by name; ConfigError names the nearest one."""
        if name not in self.pipelines:
            raise ConfigError("pipeline", f"unknown pipeline {name!r}.", nearest(name, self.pipelines))
        return self.pipelines[name]

    def needed(self, pipeline: str) -> list[Node]:
        """Every node behind a pipeline's deployed student, parents first, and its preference pairs where it has any."""
        wanted: set[Key] = set()
        ends: list[Key] = [(self.pipeline(pipeline).key, name) for name in ("deployed_student", "preference_pairs")]
        queue = [key for key in ends if key in self.nodes]
        while queue:
            key = queue.pop()
            if key in wanted:
                continue
            wanted.add(key)
            queue += [parent.key for parent in self.nodes[key].edges]
        return [node for node in self.nodes.values() if node.key in wanted]

    def select(self, pipeline: str, names: Sequence[str]) -> list[Node]:
        """The nodes of a pipeline that `names` select; all where empty.

        A name is an artifact or `owner/artifact`, with `+` before it for all that it is made of and behind it for all
        that is made of it, as Dagster's asset selection has it; several may be joined by commas.

        Raises:
            ConfigError: A name that the pipeline does not have.
        """
        nodes = self.needed(pipeline)
        if not names:
            return nodes
        known = {node.key[1]: node for node in nodes} | {key_text(node.key): node for node in nodes}
        graph = {node.key: node for node in nodes}
        keys: set[tuple[str, str]] = set()
        for name in (part.strip() for text in names for part in text.split(",")):
            bare = name.strip("+")
            if bare not in known:
                raise ConfigError("--select", f"unknown artifact {bare!r}.", nearest(bare, known))
            key = known[bare].key
            keys.add(key)
            if name.startswith("+"):
                keys |= {other for other in graph if key in descendants(graph, other)}
            if name.endswith("+"):
                keys |= set(descendants(graph, key))
        return [node for node in nodes if node.key in keys]

    def run(self, nodes: Iterable[Node], services: Services) -> list[Made]:
        """Materialize nodes in order, without Dagster and MLflow; a deployed student is promoted in the ledger."""
        made = []
        for node in nodes:
            result = materialize(node, self.store, services)
            self.after(result)
            made.append(result)
        return made

    def after(self, made: Made) -> None:
        """What follows a materialization whoever asked for it: the promotion of a deployed student."""
        if made.node.key[1] == "deployed_student":
            pipeline = self.pipelines[made.node.key[0]]
            if pipeline.config.deploy.enabled:
                deployed_student.promote(pipeline, self.store, made.version, made.run)

    def with_limit(self, limit: int) -> Project:
        """The same project as a pilot."""
        return Project(replace(self.settings), limit)
