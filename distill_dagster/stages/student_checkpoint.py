"""`student_checkpoint`: the student, trained on gold and on what the teacher said."""

from __future__ import annotations

from typing import Any

from distill_dagster.config.models import identity
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.stages import preference_pairs, teacher_signals, training
from distill_dagster.stages.context import PipelineContext
from distill_dagster.training.objectives.base import from_pairs, needs

VERSION = "1"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/student_checkpoint`."""
    return Node(
        key=(pipeline.key, "student_checkpoint"),
        version=VERSION,
        parents=(
            *_data(pipeline),
            Parent("start", (pipeline.key, "initial_student")),
            *_teachers(pipeline),
        ),
        config=identity(pipeline.config.training),
        make=lambda job: make(job, pipeline),
        title="The student after training on gold and teacher examples",
    )


def _data(pipeline: PipelineContext) -> tuple[Parent, ...]:
    """The examples; or the pairs, of which a recipe on preferences reads nothing else."""
    data = (pipeline.data, "filtered_dataset")
    if not from_pairs(pipeline.config.training):
        return (Parent("data", data),)
    # Which data set there was decides about warm starts (`initial_student.champion`); nothing of it is read here.
    return Parent("data", data, {}), Parent("pairs", (pipeline.data, preference_pairs.ARTIFACT))


def _teachers(pipeline: PipelineContext) -> tuple[Parent, ...]:
    """What a recipe that asks a teacher for more than text reads: its signals, and whose they are."""
    sources = {need.source for need in needs(pipeline.config.training)}
    parents = [Parent("teacher", (pipeline.data, "teacher_model"))] if sources else []
    if "stored" in sources:
        parents.append(Parent("signals", (pipeline.data, teacher_signals.ARTIFACT)))
    return tuple(parents)


def _teaching(job: Job, pipeline: PipelineContext) -> dict[str, Any]:
    found: dict[str, Any] = {}
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
    if "pairs" in job.inputs:
        return _on_pairs(job, pipeline)
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
        teaching=_teaching(job, pipeline),
    )
    job.notes["counts"] = {"examples": len(examples), "origins": laws.counts(row["origin"] for row in examples)}


def _on_pairs(job: Job, pipeline: PipelineContext) -> None:
    pairs = job.inputs["pairs"].table("preference").to_pylist()
    job.notes["training"] = training.run(
        job,
        pairs=pairs,
        start=job.inputs["start"].local("model"),
        recipe=pipeline.config.training,
        out=job.draft.content / "model",
        name="student",
        teaching=_teaching(job, pipeline),
    )
    job.notes["counts"] = {"pairs": len(pairs), "tasks": laws.counts(row["task"] for row in pairs)}
