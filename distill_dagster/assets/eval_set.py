"""Asset `<source>/eval_set`."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import sample_table, stage_asset
from distill_dagster.assets.seed_set import sample
from distill_dagster.lineage.engine import Made
from distill_dagster.stages.context import SourceContext
from distill_dagster.stages.project import Project

ARTIFACT = "eval_set"


def asset(project: Project, source: SourceContext, owners: list[str]) -> dg.AssetsDefinition:
    """The evaluation records of one source."""
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
    """Sample records, where the source lets them be shown."""
    if not source.config.show_records:
        return {}
    return {"sample": sample_table(["task", "part", "input", "answer"], sample(made))}
