"""Asset `<pipeline>/teacher_outputs`."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import sample_table, stage_asset, teachers_table
from distill_dagster.lineage.engine import Made
from distill_dagster.records.messages import text_of
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project

ARTIFACT = "teacher_outputs"


def asset(project: Project, pipeline: PipelineContext, owners: list[str]) -> dg.AssetsDefinition:
    """What the teacher of one pipeline said."""
    return stage_asset(
        project,
        project.nodes[pipeline.key, ARTIFACT],
        group=f"{pipeline.key}/teacher",
        kinds={"parquet"},
        owners=owners,
        describe=lambda project, made: describe(pipeline, made),
        pool="teacher_api",
    )


def describe(pipeline: PipelineContext, made: Made) -> Mapping[str, Any]:
    """Calls, tokens and money of the run, and sample answers where records may be shown."""
    calls = made.record["notes"].get("calls", {})
    shown: dict[str, Any] = {f"calls_{name}": value for name, value in calls.items()}
    if teachers := made.record["notes"].get("teachers"):
        shown["teachers"] = dg.MetadataValue.md(teachers_table(teachers))
    if vote := made.record["notes"].get("vote"):
        shown["vote"] = dg.MetadataValue.json(vote)
        if vote["agreement"] is not None:
            shown["agreement"] = vote["agreement"]
    if pipeline.source.config.show_records:
        columns = ["task", "messages", "answer", "status", "finish_reason"]
        rows = made.version.table("candidate", columns=columns).to_pylist()
        step = max(1, len(rows) // 8)
        picked = [{**row, "input": text_of(row["messages"], "user")} for row in rows[::step][:8]]
        shown["sample"] = sample_table(["task", "input", "answer", "status", "finish_reason"], picked)
    return shown
