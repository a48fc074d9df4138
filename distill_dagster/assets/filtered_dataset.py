"""Asset `<pipeline>/filtered_dataset`."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import counts_table, sample_table, stage_asset
from distill_dagster.lineage.engine import Made
from distill_dagster.records.messages import text_of
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project

ARTIFACT = "filtered_dataset"


def asset(project: Project, pipeline: PipelineContext, owners: list[str]) -> dg.AssetsDefinition:
    """What a student of this pipeline trains on."""
    return stage_asset(
        project,
        project.nodes[pipeline.key, ARTIFACT],
        group=f"{pipeline.key}/teacher",
        kinds={"parquet"},
        owners=owners,
        describe=lambda project, made: describe(pipeline, made),
    )


def describe(pipeline: PipelineContext, made: Made) -> Mapping[str, Any]:
    """The funnel with a reason for every drop, and sample examples where records may be shown."""
    shown: dict[str, Any] = {}
    funnel = made.record["notes"].get("funnel", {})
    if funnel:
        shown["funnel"] = dg.MetadataValue.md(counts_table("candidates", funnel))
    cost = made.record["notes"].get("cost")
    if cost:
        shown["cost per kept record"] = cost["cost per kept record"]
        shown["cost_micros"] = cost["cost_micros"]
    if pipeline.source.config.show_records:
        rows = made.version.table("example", columns=["task", "origin", "messages"]).to_pylist()
        step = max(1, len(rows) // 8)
        picked = [
            {**row, "input": text_of(row["messages"], "user"), "answer": text_of(row["messages"], "assistant")}
            for row in rows[::step][:8]
        ]
        shown["sample"] = sample_table(["task", "origin", "input", "answer"], picked)
    return shown
