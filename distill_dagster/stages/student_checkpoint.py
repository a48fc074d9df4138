"""`student_checkpoint`: the student, trained on gold and on what the teacher said."""

from __future__ import annotations

from typing import Any

from distill_dagster.config.models import identity
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.stages import rewarding, teacher_signals, training
from distill_dagster.stages.context import PipelineContext
from distill_dagster.training.objectives.base import needs

VERSION = "1"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/student_checkpoint`."""
    return Node(
        key=(pipeline.key, "student_checkpoint"),
        version=VERSION,
        parents=(
            Parent("data", (pipeline.data, "filtered_dataset")),
            Parent("start", (pipeline.key, "initial_student")),
            *_teachers(pipeline),
            *rewarding.parents(pipeline),
        ),
        config={**identity(pipeline.config.training), **rewarding.identity(pipeline)},
        make=lambda job: make(job, pipeline),
        title="The student after training on gold and teacher examples",
    )


def _teachers(pipeline: PipelineContext) -> tuple[Parent, ...]:
    """What a recipe that asks a teacher for more than text reads: its signals, and whose they are."""
    sources = {need.source for need in needs(pipeline.config.training)}
    parents = [Parent("teacher", (pipeline.data, "teacher_model"))] if sources else []
    if "stored" in sources:
        parents.append(Parent("signals", (pipeline.data, teacher_signals.ARTIFACT)))
    return tuple(parents)


def _teaching(job: Job, pipeline: PipelineContext, examples: list[dict[str, Any]]) -> dict[str, Any]:
    found = rewarding.task(job, pipeline, examples) if "seeds" in job.inputs else {}
    if "signals" in job.inputs:
        path = job.inputs["signals"].local("signals.parquet")
        found["signals"] = {"path": str(path), "teacher": job.inputs["teacher"].version}
    if any(need.source == "live" for need in needs(pipeline.config.training)):
        path = teacher_signals.weights(pipeline, job.inputs["teacher"])
        found["teacher"] = {"path": str(path), "dtype": pipeline.teacher.dtype}
    return found


def make(job: Job, pipeline: PipelineContext) -> None:
    """Train the student in its own process."""
    recipe = pipeline.config.training
    examples = job.inputs["data"].table("example").to_pylist()
    gold = [row for row in examples if row["origin"] == "gold"]
    repeated = examples + gold * (recipe.gold_repeat - 1)
    job.notes["training"] = training.run(
        job,
        examples=repeated,
        start=job.inputs["start"].local("model"),
        recipe=recipe,
        out=job.draft.content / "model",
        name="student",
        teaching=_teaching(job, pipeline, examples),
    )
    job.notes["counts"] = {"examples": len(examples), "origins": laws.counts(row["origin"] for row in examples)}
