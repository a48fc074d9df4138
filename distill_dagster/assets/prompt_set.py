"""Asset `<source>/prompt_set`."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import sample_table, stage_asset
from distill_dagster.lineage.engine import Made
from distill_dagster.stages.context import SourceContext
from distill_dagster.stages.project import Project

ARTIFACT = "prompt_set"


def asset(project: Project, source: SourceContext, owners: list[str]) -> dg.AssetsDefinition:
    """The prompt templates of one source."""
    return stage_asset(
        project,
        project.nodes[source.key, ARTIFACT],
        group=f"{source.key}/source",
        kinds={"jinja"},
        owners=owners,
        tags={"distill/domain": source.domain.name},
        describe=describe,
    )


def describe(project: Project, made: Made) -> Mapping[str, Any]:
    """The templates themselves: they hold no record text."""
    return {"prompts": sample_table(["task", "style", "system", "user"], made.version.table("prompt").to_pylist())}
