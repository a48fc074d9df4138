"""Asset `<pipeline>/teacher_model`."""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import picture, stage_asset
from distill_dagster.lineage.engine import Made
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project
from distill_dagster.training import metrics

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
    """What the trainings of the run that made a version looked like, as pictures, and their last losses as numbers."""
    from distill_dagster.evaluation.report import loss_figure
    from distill_dagster.evaluation.run_figure import run_figure

    runs = {
        name.removesuffix("_metrics.jsonl"): metrics.read(made.version.place / "runs" / made.run / name)
        for name in made.record["side"]
        if name.endswith("_metrics.jsonl")
    }
    runs = {name: rows for name, rows in runs.items() if rows}
    if not runs:
        return {}
    curves = {name: [(row["step"], row["loss"]) for row in rows] for name, rows in runs.items()}
    last = {f"loss_{name}": points[-1][1] for name, points in curves.items()}
    shown = {"loss": picture(loss_figure(curves), "training loss by step")}
    shown["training"] = picture(run_figure(runs), "loss terms, learning rate, gradient norm and speed by step")
    return {**shown, **last}
