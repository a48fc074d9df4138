"""Asset `<pipeline>/preference_pairs`."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import counts_table, sample_table, stage_asset
from distill_dagster.lineage.engine import Made
from distill_dagster.records.messages import text_of
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project

ARTIFACT = "preference_pairs"


def asset(project: Project, pipeline: PipelineContext, owners: list[str]) -> dg.AssetsDefinition:
    """A better and a worse answer to the same question."""
    return stage_asset(
        project,
        project.nodes[pipeline.key, ARTIFACT],
        group=f"{pipeline.key}/teacher",
        kinds={"parquet"},
        owners=owners,
        describe=lambda project, made: describe(pipeline, made),
    )


def describe(pipeline: PipelineContext, made: Made) -> Mapping[str, Any]:
    """The funnel with a reason for every comparison that made no pair, and samples where records may be shown."""
    funnel = made.record["notes"].get("funnel", {})
    shown: dict[str, Any] = {"funnel": dg.MetadataValue.md(counts_table("comparisons", funnel))}
    if pipeline.source.config.show_records:
        rows = made.version.table("preference", columns=["task", "messages", "chosen", "rejected"]).to_pylist()
        picked = [{**row, "input": text_of(row["messages"], "user")} for row in rows[:8]]
        shown["sample"] = sample_table(["task", "input", "chosen", "rejected"], picked)
    return shown
