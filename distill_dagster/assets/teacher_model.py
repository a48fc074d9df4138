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
    """The identity record of each teacher, and the loss curve where one was fitted."""
    shown: dict[str, Any] = {
        name.removesuffix(".json").replace("/", "_"): dg.MetadataValue.json(
            json.loads(made.version.local(name).read_text("utf-8"))
        )
        for name in made.version.manifest["files"]
        if name == "teacher.json" or name.startswith("teachers/")
    }
    shown |= loss_pictures(made)
    return shown


def loss_pictures(made: Made) -> dict[str, Any]:
    """The loss curves of the run that made a version, as one picture, and the last loss as a number."""
    from distill_dagster.evaluation.report import loss_figure

    curves = {
        name.removesuffix("_metrics.jsonl"): curve(made.version.place / "runs" / made.run / name)
        for name in made.record["side"]
        if name.endswith("_metrics.jsonl")
    }
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return {}
    last = {f"loss_{name}": points[-1][1] for name, points in curves.items()}
    return {"loss": picture(loss_figure(curves), "training loss by step"), **last}
