"""Asset `<pipeline>/initial_student`."""

import dagster as dg

from distill_dagster.assets.base import stage_asset
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project

ARTIFACT = "initial_student"


def asset(project: Project, pipeline: PipelineContext, owners: list[str]) -> dg.AssetsDefinition:
    """The student of one pipeline before training."""
    return stage_asset(
        project,
        project.nodes[pipeline.key, ARTIFACT],
        group=f"{pipeline.key}/student",
        kinds={"huggingface", "pytorch"},
        owners=owners,
        describe=lambda project, made: {},
    )
