"""When pipelines run by themselves: one job and one cron schedule each, off until switched on."""

import re
from typing import Any

import dagster as dg

from distill_dagster.assets.base import asset_key
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project


def job_name(project: Project, pipeline: str) -> str:
    """Name of the job that remakes a pipeline: Dagster allows letters, digits and _, a prefix may hold others."""
    parts = [part for part in project.settings.prefix.split("/") if part]
    return "_".join([*(re.sub(r"[^A-Za-z0-9_]", "_", part) for part in parts), pipeline, "retrain"])


def job_and_schedule(
    project: Project, pipeline: PipelineContext, executor: dg.ExecutorDefinition | None
) -> tuple[Any, dg.ScheduleDefinition]:
    """The job that remakes a pipeline, and the schedule that starts it.

    The schedule is off unless the YAML file says `enabled: true`; it can be switched on in the UI as well.

    Args:
        project: Config, domains and store.
        pipeline: Whose job.
        executor: The job's own; None: that of the deployment.
    """
    selection = dg.AssetSelection.assets(*(asset_key(project, node.key) for node in project.needed(pipeline.key)))
    name = job_name(project, pipeline.key)
    tags = {"distill/pipeline": pipeline.key}
    job = dg.define_asset_job(
        name,
        selection=selection,
        tags=tags,
        description=f"Remake what changed of {pipeline.key}",
        executor_def=executor,
    )
    schedule = dg.ScheduleDefinition(
        name=f"{name}_schedule",
        job=job,
        cron_schedule=pipeline.config.schedule.cron,
        execution_timezone=pipeline.config.schedule.timezone,
        tags={**tags, "distill/trigger": "cron"},
        default_status=(
            dg.DefaultScheduleStatus.RUNNING if pipeline.config.schedule.enabled else dg.DefaultScheduleStatus.STOPPED
        ),
    )
    return job, schedule
