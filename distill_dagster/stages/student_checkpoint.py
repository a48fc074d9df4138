"""`student_checkpoint`: the student, trained on gold and on what the teacher said."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from distill_dagster.config.models import identity
from distill_dagster.errors import TrainingError
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.stages import (
    examination,
    preference_pairs,
    review,
    rewarding,
    seeds,
    teacher_signals,
    training,
    validation,
)
from distill_dagster.stages.context import PipelineContext, prompts_by
from distill_dagster.training.objectives.base import from_pairs, needs

VERSION = "2"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/student_checkpoint`."""
    return Node(
        key=(pipeline.key, "student_checkpoint"),
        version=VERSION,
        parents=(
            *_data(pipeline),
            Parent("start", (pipeline.key, "initial_student")),
            *_teachers(pipeline),
            *rewarding.parents(pipeline),
            # The one that is served of several is chosen on the validation items as well.
            *validation.parents(pipeline, also=pipeline.config.evaluation.seeds > 1),
        ),
        config={
            **identity(pipeline.config.training),
            **seeds.identity(pipeline),
            **rewarding.identity(pipeline),
        },
        make=lambda job: make(job, pipeline),
        title="The student after training on gold and teacher examples",
        admit=review.admits(pipeline, "data"),
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
    held = sorted({need.source for need in needs(pipeline.config.training)} - {"stored"})
    if held:
        path = teacher_signals.weights(pipeline, job.inputs["teacher"])
        found["teacher"] = {"path": str(path), "dtype": pipeline.teacher.dtype, "sources": held}
    return found


def make(job: Job, pipeline: PipelineContext) -> None:
    """Train the student in its own process, once a seed: on examples, or on the pairs that its terms learn from."""
    recipe, count = pipeline.config.training, pipeline.config.evaluation.seeds
    taught = _on_pairs(job) if "pairs" in job.inputs else _on_examples(job, pipeline)
    teaching = _teaching(job, pipeline)
    if "seeds" in job.inputs:
        teaching |= rewarding.task(job, pipeline, taught["examples"])
    looked = validation.examples(job, pipeline)

    def training_of(index: int) -> Callable[[Job], dict[str, Any]]:
        return lambda own: training.run(
            own,
            **taught,
            start=seeds.start(job.inputs["start"], index),
            recipe=seeds.recipe(recipe, index),
            out=job.draft.content / (f"model_s{index}" if count > 1 else "model"),
            name=f"student{seeds.suffix(index)}",
            teaching={**teaching, **training.base_reference(job, recipe, index)},
            validation=looked,
        )

    runs = {f"training{seeds.suffix(index)}": training_of(index) for index in range(count)}
    seeds.side_by_side(job, runs, recipe.threads * recipe.processes)
    if count > 1:
        _serve_median(job, pipeline, count)


def _on_pairs(job: Job) -> dict[str, Any]:
    """Preference pairs to train on."""
    pairs = job.inputs["pairs"].table("preference").to_pylist()
    job.notes["counts"] = {"pairs": len(pairs), "tasks": laws.counts(row["task"] for row in pairs)}
    return {"pairs": pairs}


def _on_examples(job: Job, pipeline: PipelineContext) -> dict[str, Any]:
    """Examples to train on."""
    recipe = pipeline.config.training
    examples = job.inputs["data"].table("example").to_pylist()
    gold = [row for row in examples if row["origin"] == "gold"]
    if recipe.rationale.mode != "label_only" and not any(row["rationale"] for row in examples):
        raise TrainingError(
            f"{pipeline.key}/student_checkpoint",
            f"rationale.mode is {recipe.rationale.mode}, and no example has an explanation.",
            "Ask for them: `knowledge: [{name: labeling, rationale: true}]`, with a teacher that gives them.",
        )
    job.notes["counts"] = {"examples": len(examples), "origins": laws.counts(row["origin"] for row in examples)}
    return {"examples": examples + gold * (recipe.gold_repeat - 1)}


def _serve_median(job: Job, pipeline: PipelineContext, count: int) -> None:
    """Put the seed with the median score on D_val where the served weights lie; without D_val, the first.

    The median and not the best, so that the report of all seeds speaks of what is served (DESIGN.md 9).
    """
    tasks = pipeline.tasks
    rows = job.inputs["evals"].table("seed", filters=[("part", "==", "validation")]).to_pylist()
    items = [row for row in rows if row["task"] in tasks and row["answer"] is not None]
    means: list[float] = []
    for index in range(count if items else 0):
        answers, _ = examination.ask_student(
            job.draft.content / f"model_s{index}",
            f"student, seed {index}",
            pipeline,
            prompts_by(job.inputs["prompts"]),
            items,
            progress=lambda done, total, index=index: job.progress(done, total, f"seed {index} on D_val"),
        )
        means.append(math.fsum(examination.scores(pipeline, items, answers)) / len(items))
    served = seeds.median(means) if means else 0
    (job.draft.content / f"model_s{served}").rename(job.draft.content / "model")
    job.draft.write_json("seeds.json", {"served": served, "validation": means, "items": len(items)})
    job.notes["seeds"] = {"served": served, "validation": means, "items": len(items)}
