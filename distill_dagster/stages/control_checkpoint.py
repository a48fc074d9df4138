"""`control_checkpoint`: the same student on gold alone, at the student's own budget and at multiples of it.

Budget is optimizer steps × batch tokens. Larger multiples stand beside it so that a starved control cannot make
distillation look good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distill_dagster.config.models import identity
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.stages import seeds, training
from distill_dagster.stages.context import PipelineContext
from distill_dagster.training.objectives.base import needs

VERSION = "1"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/control_checkpoint`."""
    return Node(
        key=(pipeline.key, "control_checkpoint"),
        version=VERSION,
        parents=(
            Parent("data", (pipeline.data, "filtered_dataset"), {"example": ("gold",)}),
            Parent("start", (pipeline.key, "initial_student")),
        ),
        config={
            **identity(pipeline.config.training),
            "control": pipeline.config.control.model_dump(),
            **seeds.identity(pipeline),
        },
        make=lambda job: make(job, pipeline),
        title="The equal-budget control: the same start and budget, gold only",
    )


def make(job: Job, pipeline: PipelineContext) -> None:
    """Train the control once a multiple and seed, side by side where there are cores; `mode: off`, or no gold: not
    measured."""
    recipe, control = pipeline.config.training, pipeline.config.control
    examples = job.inputs["data"].table("example", filters=[("origin", "==", "gold")]).to_pylist()
    multiples = sorted(control.multiples, reverse=True) if control.mode == "auto" and examples else []
    job.draft.write_json("control.json", {"measured": bool(multiples), "multiples": sorted(multiples)})
    # Gold has no teacher: whatever the student learns from one, its twin learns from labels alone.
    objective = {"sft": 1.0} if needs(recipe) else recipe.objective

    def training_of(multiple: int, index: int) -> Callable[[Job], dict[str, Any]]:
        longer = seeds.recipe(recipe, index).model_copy(
            update={"steps": recipe.steps * multiple, "objective": objective}
        )
        return lambda own: training.run(
            own,
            examples=examples,
            start=seeds.start(job.inputs["start"], index),
            recipe=longer,
            out=job.draft.content / f"model_{multiple}x{seeds.suffix(index)}",
            name=f"control_{multiple}x{seeds.suffix(index)}",
        )

    runs = {
        f"training_{multiple}x{seeds.suffix(index)}": training_of(multiple, index)
        for multiple in multiples
        for index in range(pipeline.config.evaluation.seeds)
    }
    seeds.side_by_side(job, runs, recipe.threads)
    job.notes["counts"] = {"examples": len(examples)}
