"""From a project to Dagster definitions: assets by stage, checks, one job and one schedule a pipeline."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from distill_dagster.assets import (
    checks,
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
from distill_dagster.automation import job_and_schedule
from distill_dagster.errors import ConfigError, PluginError
from distill_dagster.resources.mlflow_tracking import MlflowTracking
from distill_dagster.resources.training_process import TrainingProcess
from distill_dagster.settings import Settings
from distill_dagster.stages import plugins
from distill_dagster.stages.context import PipelineContext, SourceContext
from distill_dagster.stages.project import Project

log = logging.getLogger(__name__)

SOURCE_ASSETS = (seed_set, eval_set, prompt_set)
DATA_ASSETS = (teacher_model, teacher_outputs, filtered_dataset)
STUDENT_ASSETS = (initial_student, student_checkpoint, control_checkpoint, eval_report, deployed_student)

#: The very same objects for every project of a process: Dagster merges them only so.
RESOURCES = {"distill_tracking": MlflowTracking(), "distill_training": TrainingProcess()}


def build_definitions(config_dir: Path | str | None = None, prefix: str | None = None) -> dg.Definitions:
    """Dagster definitions of a project, as a code location of its own; every run in it is one process.

    Args:
        config_dir: Folder of the YAML files; `DISTILL_ASSETS_CONFIG`, then `./assets_config`, by default.
        prefix: Key prefix; `DISTILL_PREFIX` by default.

    Raises:
        ConfigError: The files say something that cannot be; the message names file, key and reason.

    Example:
        >>> from distill_dagster import build_definitions
        >>> defs = build_definitions("assets_config")
    """
    ours = project_definitions(_project(config_dir, prefix))
    return dg.Definitions.merge(ours, dg.Definitions(executor=dg.in_process_executor))


def merge_definitions(
    own: dg.Definitions, config_dir: Path | str | None = None, prefix: str | None = None
) -> dg.Definitions:
    """A deployment's own definitions and a project's, as one code location.

    Args:
        own: What the deployment has already; its executor, where it names one, serves both, else each run of our jobs
            is one process. Where it has `distill_tracking` or `distill_training`, that one serves ours.
        config_dir: As in `build_definitions`.
        prefix: As in `build_definitions`.

    Raises:
        ConfigError: Both define an asset of the same key, or a job, schedule, sensor or resource of the same name; says
            which, and both owners.
    """
    project = _project(config_dir, prefix)
    executor = None if own.executor is not None else dg.in_process_executor
    ours = project_definitions(project, executor, own.resources or {})
    theirs = {
        spec.key: spec
        for assets in own.resolve_asset_graph().assets_defs
        if not assets.is_auto_created_stub
        for spec in assets.specs
    }
    for key in sorted(ours.resolve_all_asset_keys()):
        if key in theirs:
            raise ConfigError(
                f"asset {key.to_user_string()}",
                f"two claim this key: {_claim(theirs[key])}, and {_file(project, key)}.",
                'Give a prefix, as in merge_definitions(own, prefix="distill"), or another `name` in that file.',
            )
    shared = {
        ("resource", name) for name, given in (own.resources or {}).items() if given is (ours.resources or {}).get(name)
    }
    for kind, name in sorted(_names(own) & _names(ours) - shared):
        raise ConfigError(
            f"{kind} {name}",
            f"two claim this name: the deployment's own, and the project in {project.settings.config}.",
            'Give a prefix, as in merge_definitions(own, prefix="distill"), or rename yours.'
            if kind != "resource"
            else f"Rename yours, or make it a {type(RESOURCES[name]).__name__}, and it serves the project.",
        )
    return dg.Definitions.merge(own, ours)


def _names(definitions: dg.Definitions) -> set[tuple[str, str]]:
    """Kind and name of what two definitions must not both have, besides assets and their checks."""
    found = {("job", job.name) for job in definitions.jobs or ()}
    # Dagster keeps schedules and sensors under one roof.
    found |= {
        ("schedule or sensor", one.name) for one in (*(definitions.schedules or ()), *(definitions.sensors or ()))
    }
    return found | {("resource", name) for name in definitions.resources or {}}


def _keys(definitions: dg.Definitions) -> set[tuple[str, str]]:
    """The same of assets and their checks, as far as they are known before the definitions are resolved."""
    found = set[tuple[str, str]]()
    for one in definitions.assets or ():
        keys = one.keys if isinstance(one, dg.AssetsDefinition) else [getattr(one, "key", None)]
        found |= {("asset", key.to_user_string()) for key in keys if isinstance(key, dg.AssetKey)}
    for one in definitions.asset_checks or ():
        found |= {("asset check", key.to_user_string()) for key in one.check_keys}
    return found


def _claim(spec: dg.AssetSpec) -> str:
    """Whose an asset of the deployment's own is, as far as it says so."""
    owners = f", owned by {', '.join(spec.owners)}" if spec.owners else ""
    return f"the deployment's own asset in group {spec.group_name or 'default'!r}{owners}"


def _file(project: Project, key: dg.AssetKey) -> str:
    """The YAML file that an asset of ours comes from."""
    name, artifact = key.path[-2:]
    kind = "source" if artifact in {module.ARTIFACT for module in SOURCE_ASSETS} else "pipeline"
    if (kind, name) not in project.config.files:  # a plugin's own asset
        return f"a plugin's asset in {project.settings.config}"
    return f"{kind} {name!r} of {project.config.file_of(kind, name)}"


def _project(config_dir: Path | str | None, prefix: str | None) -> Project:
    settings = Settings.from_environment(config_dir)
    return Project(settings if prefix is None else replace(settings, prefix=prefix))


def project_definitions(
    project: Project,
    executor: dg.ExecutorDefinition | None = dg.in_process_executor,
    given: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """Dagster definitions of a loaded project.

    Args:
        project: Config, domains and store.
        executor: Of our jobs alone; None: that of the deployment.
        given: Resources that are there already; one of ours among them, by name and type, is taken for it.
    """
    there = given or {}
    resources = {
        name: there[name] if isinstance(there.get(name), type(ours)) else ours for name, ours in RESOURCES.items()
    }
    merged = [_of_source(project, source) for source in project.sources.values()]
    merged += [_of_pipeline(project, pipeline, executor) for pipeline in project.pipelines.values()]
    definitions = dg.Definitions.merge(dg.Definitions(resources=resources), *merged)
    for source in project.sources.values():
        definitions = _with_nodes(project, source, definitions)
    return definitions


def _with_nodes(project: Project, source: SourceContext, definitions: dg.Definitions) -> dg.Definitions:
    """The definitions with the extra nodes of a source's domain; without them, and a warning, where they are faulty."""
    try:
        extra = plugins.nodes(project, source)
        if extra is None:
            return definitions
        if not isinstance(extra, dg.Definitions):
            raise plugins.fault(project, source, f"returned {type(extra).__name__}, not dagster.Definitions")
        taken = (_keys(definitions) & _keys(extra)) | (_names(definitions) & _names(extra))
        if taken:
            kind, name = min(taken)
            raise plugins.fault(project, source, f"the {kind} {name} is there already")
        try:
            return dg.Definitions.merge(definitions, extra)
        except Exception as error:  # executors or loggers that differ
            raise plugins.fault(project, source, f"cannot be merged ({type(error).__name__}: {error})") from error
    except PluginError as error:
        log.warning("extra nodes are left out: %s", error)
        return definitions


def owners_of(source: SourceContext, pipeline: PipelineContext | None = None) -> list[str]:
    """Owners of an asset: the pipeline's, else the source's, else the domain's."""
    own = list(pipeline.config.owners) if pipeline is not None else []
    return own or list(source.config.owners) or list(source.domain.owners)


def _of_source(project: Project, source: SourceContext) -> dg.Definitions:
    assets = [module.asset(project, source, owners_of(source)) for module in SOURCE_ASSETS]
    return dg.Definitions(assets=assets, asset_checks=checks.of_source(project, source))


def _of_pipeline(project: Project, pipeline: PipelineContext, executor: dg.ExecutorDefinition | None) -> dg.Definitions:
    modules = STUDENT_ASSETS if pipeline.data != pipeline.key else (*DATA_ASSETS, *STUDENT_ASSETS)
    if (pipeline.key, preference_pairs.ARTIFACT) in project.nodes:
        modules = (*modules, preference_pairs)
    owners = owners_of(pipeline.source, pipeline)
    assets = [module.asset(project, pipeline, owners) for module in modules]
    if (pipeline.key, teacher_signals.ARTIFACT) in project.nodes:
        assets.append(teacher_signals.asset(project, pipeline, owners))
    job, schedule = job_and_schedule(project, pipeline, executor)
    return dg.Definitions(
        assets=assets, asset_checks=checks.of_pipeline(project, pipeline), jobs=[job], schedules=[schedule]
    )
