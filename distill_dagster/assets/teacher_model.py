"""Asset `<pipeline>/teacher_model`."""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import picture, stage_asset
from distill_dagster.lineage.engine import Made
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project
from distill_dagster.stages.training import curve

ARTIFACT = "teacher_model"


def asset(project: Project, pipeline: PipelineContext, owners: list[str]) -> dg.AssetsDefinition:
    """The teacher of one pipeline."""
    return stage_asset(
        project,
        project.nodes[pipeline.key, ARTIFACT],
        group=f"{pipeline.key}/teacher",
        kinds={"huggingface", "pytorch"} if pipeline.teacher.backend == "transformers" else {"openai"},
        owners=owners,
        describe=describe,
        pool="gpu" if pipeline.teacher.fit else None,
    )


def describe(project: Project, made: Made) -> Mapping[str, Any]:
    """The identity record, and the loss curve where the teacher was fitted."""
    record = json.loads(made.version.local("teacher.json").read_text("utf-8"))
    shown: dict[str, Any] = {"teacher": dg.MetadataValue.json(record)}
    shown |= loss_pictures(made)
    return shown


def loss_pictures(made: Made) -> dict[str, Any]:
    """The loss curves of the run that made a version, as one picture, and the last loss as a number. So the rewards,
    where a student was rewarded."""
    from distill_dagster.evaluation.report import loss_figure

    shown: dict[str, Any] = {}
    for what in ("loss", "reward"):
        curves = {
            name.removesuffix("_metrics.jsonl"): curve(made.version.place / "runs" / made.run / name, what)
            for name in made.record["side"]
            if name.endswith("_metrics.jsonl")
        }
        curves = {name: points for name, points in curves.items() if points}
        if curves:
            shown[what] = picture(loss_figure(curves, what), f"training {what} by step")
            shown |= {f"{what}_{name}": points[-1][1] for name, points in curves.items()}
    return shown
