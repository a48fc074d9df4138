"""`control_checkpoint`: the same student on gold alone, at the student's own budget and at multiples of it.

Budget is optimizer steps × batch tokens. Larger multiples stand beside it so that a starved control cannot make
distillation look good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distill_dagster.config.models import identity
from distill_dagster.config.registry import load
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.stages import seeds, training, validation
from distill_dagster.stages.arms.base import PACKAGE, Material, Rows
from distill_dagster.stages.context import PipelineContext
from distill_dagster.training.objectives.base import from_pairs, needs, samples

VERSION = "2"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/control_checkpoint`."""
    return Node(
        key=(pipeline.key, "control_checkpoint"),
        version=VERSION,
        parents=(
            Parent("data", (pipeline.data, "filtered_dataset"), {"example": ("gold",)}),
            Parent("start", (pipeline.key, "initial_student")),
            *{entry.role: entry for entry in (*_unlabeled(pipeline), *validation.parents(pipeline))}.values(),
        ),
        config={
            **identity(pipeline.config.training),
            "control": identity(pipeline.config.control),
            **seeds.identity(pipeline),
        },
        make=lambda job: make(job, pipeline),
        title="The equal-budget control: the same start and budget, gold only",
    )


def _unlabeled(pipeline: PipelineContext) -> tuple[Parent, ...]:
    """What further arms read: D_U, and how it is asked."""
    if not pipeline.config.control.arms:
        return ()
    source = pipeline.source.key
    return (
        Parent("seeds", (source, "seed_set"), {"seed": ("unlabeled",)}),
        Parent("prompts", (source, "prompt_set"), {"prompt": ("short",)}),
    )


def make(job: Job, pipeline: PipelineContext) -> None:
    """Train the control once a multiple and seed, then every further arm; side by side where there are cores.

    With `mode: off`, or without gold, nothing is measured.
    """
    recipe, control = pipeline.config.training, pipeline.config.control
    examples = job.inputs["data"].table("example", filters=[("origin", "==", "gold")]).to_pylist()
    multiples = sorted(control.multiples, reverse=True) if control.mode == "auto" and examples else []
    arms = list(control.arms) if multiples else []
    measured = {"measured": bool(multiples), "multiples": sorted(multiples)}
    job.draft.write_json("control.json", {**measured, "arms": arms} if arms else measured)
    # Gold has no teacher, no worse answer and no verdict: whatever the student learns from them, its twin learns from
    # labels alone.
    taught = needs(recipe) or from_pairs(recipe) or samples(recipe)
    objective = {"sft": 1.0} if taught else recipe.objective
    looked = validation.examples(job, pipeline) if multiples else []

    def training_of(name: str, multiple: int, index: int, rows: Rows) -> Callable[[Job], dict[str, Any]]:
        longer = seeds.recipe(recipe, index).model_copy(
            update={"steps": recipe.steps * multiple, "objective": objective, "trainer": "builtin"}
        )
        return lambda own: training.run(
            own,
            examples=rows,
            start=seeds.start(job.inputs["start"], index),
            recipe=longer,
            out=job.draft.content / f"model_{name}{seeds.suffix(index)}",
            name=f"control_{name}{seeds.suffix(index)}",
            teaching=training.base_reference(job, recipe, index),
            validation=looked,
        )

    def side_by_side(names: Mapping[str, int], rows: Callable[[str, int], Rows]) -> None:
        runs = {
            f"training_{name}{seeds.suffix(index)}": training_of(name, multiple, index, rows(name, index))
            for name, multiple in names.items()
            for index in range(pipeline.config.evaluation.seeds)
        }
        seeds.side_by_side(job, runs, recipe.threads * recipe.processes)

    side_by_side({f"{multiple}x": multiple for multiple in multiples}, lambda name, index: examples)
    side_by_side(dict.fromkeys(arms, 1), lambda name, index: _arm(job, pipeline, name, examples, index))
    job.notes["counts"] = {"examples": len(examples)}


def _arm(job: Job, pipeline: PipelineContext, name: str, gold: Rows, index: int) -> Rows:
    """What a further arm of one seed learns from."""
    arm = load(PACKAGE, name, "Arm", "control.arms")()
    rows = arm(Material(job, pipeline, gold, job.draft.content / f"model_1x{seeds.suffix(index)}"))
    job.notes.setdefault("arms", {}).setdefault(name, {"examples": len(rows)})
    return rows
