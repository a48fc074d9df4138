"""Asset `<pipeline>/eval_report`."""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import picture, stage_asset
from distill_dagster.lineage.engine import Made
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project

ARTIFACT = "eval_report"


def asset(project: Project, pipeline: PipelineContext, owners: list[str]) -> dg.AssetsDefinition:
    """The examination of one pipeline's student."""
    return stage_asset(
        project,
        project.nodes[pipeline.key, ARTIFACT],
        group=f"{pipeline.key}/student",
        kinds={"scikitlearn"},
        owners=owners,
        describe=describe,
    )


def describe(project: Project, made: Made) -> Mapping[str, Any]:
    """The table, the pictures, and the numbers that Dagster plots over time."""
    from distill_dagster.evaluation import report
    from distill_dagster.evaluation.protocol import Report

    text = made.version.local("report.json").read_text("utf-8")
    result = Report.from_json(text, made.record["notes"].get("resources"))
    shown: dict[str, Any] = {
        "report": dg.MetadataValue.md(report.to_markdown(result)),
        "scores": picture(report.score_figure(result), "scores of every arm with intervals"),
        "gap": picture(report.gap_figure(result), "share of the gap that distillation closed"),
        "page": dg.MetadataValue.path(str(made.version.place / "runs" / made.run / "report.html")),
    }
    for task in json.loads(text)["tasks"]:
        for arm, entry in task["arms"].items():
            shown[f"{task['name']}_{arm}"] = float(entry["value"])
        if task["gap"].get("1"):
            shown[f"{task['name']}_gap_closed"] = float(task["gap"]["1"]["value"])
    return shown
