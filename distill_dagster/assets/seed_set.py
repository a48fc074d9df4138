"""Asset `<source>/seed_set`."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import sample_table, stage_asset
from distill_dagster.lineage.engine import Made
from distill_dagster.records.messages import text_of
from distill_dagster.stages.context import SourceContext
from distill_dagster.stages.project import Project

ARTIFACT = "seed_set"


def asset(project: Project, source: SourceContext, owners: list[str]) -> dg.AssetsDefinition:
    """The seed records of one source."""
    return stage_asset(
        project,
        project.nodes[source.key, ARTIFACT],
        group=f"{source.key}/source",
        kinds={"parquet"},
        owners=owners,
        tags={"distill/domain": source.domain.name},
        describe=lambda project, made: describe(source, made),
    )


def describe(source: SourceContext, made: Made) -> Mapping[str, Any]:
    """Sample records, where the source lets them be shown, and the notice of authored ones."""
    authored = source.config.grammar is not None
    shown: dict[str, Any] = {"notice": source.domain.notice} if authored and source.domain.notice else {}
    if source.config.show_records:
        shown["sample"] = sample_table(["task", "part", "input", "answer"], sample(made))
    return shown


def sample(made: Made, each: int = 3) -> list[dict[str, Any]]:
    """A few records a task."""
    taken: dict[str, int] = {}
    rows = []
    for row in made.version.table("seed", columns=["task", "part", "messages", "answer"]).to_pylist():
        taken[row["task"]] = taken.get(row["task"], 0) + 1
        if taken[row["task"]] <= each:
            rows.append({**row, "input": text_of(row["messages"])})
    return rows
