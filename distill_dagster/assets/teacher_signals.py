"""Asset `<pipeline>/teacher_signals`."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import stage_asset
from distill_dagster.lineage.engine import Made
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project

ARTIFACT = "teacher_signals"


def asset(project: Project, pipeline: PipelineContext, owners: list[str]) -> dg.AssetsDefinition:
    """The teacher's probabilities on the data of one pipeline."""
    return stage_asset(
        project,
        project.nodes[pipeline.key, ARTIFACT],
        group=f"{pipeline.key}/teacher",
        kinds={"parquet", "pytorch"},
        owners=owners,
        describe=lambda project, made: describe(made),
        pool="gpu",
    )


def describe(made: Made) -> Mapping[str, Any]:
    """Size, bytes a token, and whether storing pays."""
    said = made.record["notes"].get("signals", {})
    shown = {name: said[name] for name in ("bytes", "bytes_a_token", "seconds") if name in said}
    return {**{f"signals_{name}": value for name, value in shown.items()}, "break_even": said.get("break_even", "")}
