"""What `early_stop` looks at: a share of D_val, never of D_test."""

from __future__ import annotations

import hashlib
from typing import Any

from distill_dagster.errors import TrainingError
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Parent
from distill_dagster.stages import teacher_model
from distill_dagster.stages.context import PipelineContext


def parents(pipeline: PipelineContext, also: bool = False) -> tuple[Parent, ...]:
    """What a recipe that stops early reads beside its data, or with `also` any other: the validation part alone, and
    the prompts."""
    if pipeline.config.training.early_stop is None and not also:
        return ()
    source = pipeline.source.key
    return (
        Parent("evals", (source, "eval_set"), {"seed": ("validation",)}),
        Parent("prompts", (source, "prompt_set"), {"prompt": ("short",)}),
    )


def examples(job: Job, pipeline: PipelineContext) -> list[dict[str, Any]]:
    """The share of D_val that the recipe asks for, as EXAMPLE rows with gold answers; none where it does not.

    A hash of the record decides, so a new record moves no other.

    Raises:
        TrainingError: There are no validation records with an answer.
    """
    options = pipeline.config.training.early_stop
    if options is None:
        return []
    rows = teacher_model.gold_examples(job.inputs["evals"], job.inputs["prompts"], "validation", pipeline.source.domain)
    rows = [row for row in rows if row["task"] in pipeline.tasks]
    kept = [row for row in rows if _point(row["seed_record_id"]) < options.share]
    if not kept:
        raise TrainingError(
            f"{job.node.key[0]}/{job.node.key[1]}",
            f"early_stop looks at validation records, and {len(rows)} with an answer times share {options.share:g} "
            "leave none.",
            "Raise `grammar.validation`, `split.validation` or `early_stop.share`, or leave early_stop out.",
        )
    return kept


def _point(record_id: str) -> float:
    return int(hashlib.sha256(f"early stop/{record_id}".encode()).hexdigest()[:13], 16) / 2**52
