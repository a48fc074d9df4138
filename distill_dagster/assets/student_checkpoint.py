"""Asset `<pipeline>/student_checkpoint`."""

import dagster as dg

from distill_dagster.assets.base import stage_asset
from distill_dagster.assets.teacher_model import loss_pictures
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project

ARTIFACT = "student_checkpoint"


def asset(project: Project, pipeline: PipelineContext, owners: list[str]) -> dg.AssetsDefinition:
    """The trained student of one pipeline."""
    return stage_asset(
        project,
        project.nodes[pipeline.key, ARTIFACT],
        group=f"{pipeline.key}/student",
        kinds={"huggingface", "pytorch"},
        owners=owners,
        describe=lambda project, made: loss_pictures(made),
        pool="gpu",
    )
