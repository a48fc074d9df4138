"""`student_checkpoint`: the student, trained on gold and on what the teacher said."""

from __future__ import annotations

from distill_dagster.config.models import identity
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.stages import training
from distill_dagster.stages.context import PipelineContext

VERSION = "1"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/student_checkpoint`."""
    return Node(
        key=(pipeline.key, "student_checkpoint"),
        version=VERSION,
        parents=(
            Parent("data", (pipeline.data, "filtered_dataset")),
            Parent("start", (pipeline.key, "initial_student")),
        ),
        config=identity(pipeline.config.training),
        make=lambda job: make(job, pipeline),
        title="The student after training on gold and teacher examples",
    )


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
    )
    job.notes["counts"] = {"examples": len(examples), "origins": laws.counts(row["origin"] for row in examples)}
