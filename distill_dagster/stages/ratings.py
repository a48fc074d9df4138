"""A judge's ratings as content of `teacher_outputs`, where a filter rule reads them.

Judgements are evidence of the run that asked for them and enter no data version. A rule that drops by score needs them
as an input: so with `judge_score` among the filters, the scores become the content table `rating`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from distill_dagster.knowledge.base import Harvest
from distill_dagster.records import tables
from distill_dagster.stages.context import PipelineContext
from distill_dagster.storage.store import Version

RULE = "judge_score"
#: Bumped by a person when the rows change.
RATINGS_VERSION = "1"

#: Scores by criterion, by seed record id, task and answer.
Ratings = dict[tuple[str | None, str, str | None], dict[str, list[float]]]


def wanted(pipeline: PipelineContext) -> bool:
    """Whether a filter rule of the pipeline reads ratings."""
    return any(block.name == RULE for block in pipeline.config.filtering)


def identity(pipeline: PipelineContext) -> dict[str, Any]:
    """What the action key of the answers holds of it; nothing where no rule reads ratings."""
    return {"ratings": RATINGS_VERSION} if wanted(pipeline) else {}


def parts(pipeline: PipelineContext) -> Mapping[str, tuple[str, ...]]:
    """What a stage that reads parts of the answers reads of the ratings."""
    return {"rating": ("all",)} if wanted(pipeline) else {}


def table(harvest: Harvest) -> pa.Table:
    """The RATING table."""
    return tables.build("rating", harvest.ratings)


def read(outputs: Version) -> Ratings:
    """Ratings of a version of the answers; none where no rule reads them."""
    found: Ratings = {}
    if "rating" not in outputs.manifest["tables"]:
        return found
    for row in outputs.table("rating").to_pylist():
        scores = found.setdefault((row["seed_record_id"], row["task"], row["answer"]), {})
        scores.setdefault(row["criterion"], []).append(row["score"])
    return found
