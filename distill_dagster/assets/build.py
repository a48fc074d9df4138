"""From a project to Dagster definitions: assets by stage, checks, one job and one schedule a pipeline."""

from dataclasses import replace
from pathlib import Path

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
from distill_dagster.errors import ConfigError
from distill_dagster.resources.mlflow_tracking import MlflowTracking
from distill_dagster.resources.training_process import TrainingProcess
from distill_dagster.settings import Settings
from distill_dagster.stages import plugins
from distill_dagster.stages.context import PipelineContext, SourceContext
from distill_dagster.stages.project import Project

SOURCE_ASSETS = (seed_set, eval_set, prompt_set)
DATA_ASSETS = (teacher_model, teacher_outputs, filtered_dataset)
STUDENT_ASSETS = (initial_student, student_checkpoint, control_checkpoint, eval_report, deployed_student)


def build_definitions(config_dir: Path | str | None = None, prefix: str | None = None) -> dg.Definitions:
    """Dagster definitions of a project.

    Args:
        config_dir: Folder of the YAML files; `DISTILL_ASSETS_CONFIG`, then `./assets_config`, by default.
        prefix: Key prefix, so that the assets merge into a deployment that owns such keys already.

    Raises:
        ConfigError: The files say something that cannot be; the message names file, key and reason.

    Example:
        >>> from distill_dagster import build_definitions
        >>> defs = dg.Definitions.merge(my_defs, build_definitions("assets_config", prefix="distill"))
    """
    return project_definitions(_project(config_dir, prefix))


def merge_definitions(
    own: dg.Definitions, config_dir: Path | str | None = None, prefix: str | None = None
) -> dg.Definitions:
    """A deployment's own definitions and a project's, as one code location.

    Args:
        own: What the deployment has already; its executor, where it names one, serves both.
        config_dir: As in `build_definitions`.
        prefix: As in `build_definitions`.

    Raises:
        ConfigError: Both define an asset of the same key; names the key and both owners.
    """
    project = _project(config_dir, prefix)
    ours = project_definitions(project, None if own.executor is not None else dg.in_process_executor)
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
    return dg.Definitions.merge(own, ours)


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
    project: Project, executor: dg.ExecutorDefinition | None = dg.in_process_executor
) -> dg.Definitions:
    """Dagster definitions of a loaded project."""
    merged = [_of_source(project, source) for source in project.sources.values()]
    merged += [_of_pipeline(project, pipeline) for pipeline in project.pipelines.values()]
    resources = {"tracking": MlflowTracking(), "training": TrainingProcess()}
    return dg.Definitions.merge(dg.Definitions(resources=resources, executor=executor), *merged)


def owners_of(source: SourceContext, pipeline: PipelineContext | None = None) -> list[str]:
    """Owners of an asset: the pipeline's, else the source's, else the domain's."""
    own = list(pipeline.config.owners) if pipeline is not None else []
    return own or list(source.config.owners) or list(source.domain.owners)


def _of_source(project: Project, source: SourceContext) -> dg.Definitions:
    assets = [module.asset(project, source, owners_of(source)) for module in SOURCE_ASSETS]
    definitions = dg.Definitions(assets=assets, asset_checks=checks.of_source(project, source))
    extra = plugins.nodes(source)
    return dg.Definitions.merge(definitions, extra(project, source)) if extra is not None else definitions


def _of_pipeline(project: Project, pipeline: PipelineContext) -> dg.Definitions:
    modules = STUDENT_ASSETS if pipeline.data != pipeline.key else (*DATA_ASSETS, *STUDENT_ASSETS)
    if (pipeline.key, preference_pairs.ARTIFACT) in project.nodes:
        modules = (*modules, preference_pairs)
    owners = owners_of(pipeline.source, pipeline)
    assets = [module.asset(project, pipeline, owners) for module in modules]
    if (pipeline.key, teacher_signals.ARTIFACT) in project.nodes:
        assets.append(teacher_signals.asset(project, pipeline, owners))
    job, schedule = job_and_schedule(project, pipeline)
    return dg.Definitions(
        assets=assets, asset_checks=checks.of_pipeline(project, pipeline), jobs=[job], schedules=[schedule]
    )
