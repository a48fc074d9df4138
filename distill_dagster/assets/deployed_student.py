"""Asset `<pipeline>/deployed_student`."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import stage_asset
from distill_dagster.lineage.engine import Made
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project

ARTIFACT = "deployed_student"


def asset(project: Project, pipeline: PipelineContext, owners: list[str]) -> dg.AssetsDefinition:
    """The served student of one pipeline."""
    return stage_asset(
        project,
        project.nodes[pipeline.key, ARTIFACT],
        group=f"{pipeline.key}/student",
        kinds={"mlflow", "huggingface"},
        owners=owners,
        describe=lambda project, made: describe(project, pipeline, made),
    )


def describe(project: Project, pipeline: PipelineContext, made: Made) -> Mapping[str, Any]:
    """The gates' evidence, where the weights lie, and how to audit them."""
    gates = made.record["notes"]["gates"]
    for entry in Ledger(project.store).promotions(pipeline.key, pipeline.config.deploy.alias)[-1:]:
        if entry["payload"]["version"] == made.version.version:  # judged when it was promoted, later than it was made
            gates = entry["payload"]["gates"]
    lines = ["| gate | passed | why |", "|---|---|---|"]
    lines += [f"| {gate['gate']} | {'yes' if gate['passed'] else 'no'} | {gate['reason']} |" for gate in gates]
    return {
        "gates": dg.MetadataValue.md("\n".join(lines)),
        "weights": dg.MetadataValue.path(str(made.version.place / "model")),
        "alias": pipeline.config.deploy.alias,
        "audit": dg.MetadataValue.md(f"`distill-dagster audit {pipeline.key}@{pipeline.config.deploy.alias}`"),
    }
