"""`control_checkpoint`: the same student on gold alone, at the student's own budget and at multiples of it.

Budget is optimizer steps × batch tokens. Larger multiples stand beside it so that a starved control cannot make
distillation look good.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from distill_dagster.config.models import identity
from distill_dagster.errors import TrainingError
from distill_dagster.lineage.engine import Job, no_session
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.stages import training
from distill_dagster.stages.context import PipelineContext
from distill_dagster.training.objectives.base import needs, samples

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
        config={**identity(pipeline.config.training), "control": pipeline.config.control.model_dump()},
        make=lambda job: make(job, pipeline),
        title="The equal-budget control: the same start and budget, gold only",
    )


def make(job: Job, pipeline: PipelineContext) -> None:
    """Train the control once a multiple, side by side where there are cores; `mode: off`, or no gold: not measured."""
    recipe, control = pipeline.config.training, pipeline.config.control
    examples = job.inputs["data"].table("example", filters=[("origin", "==", "gold")]).to_pylist()
    multiples = sorted(control.multiples, reverse=True) if control.mode == "auto" and examples else []
    job.draft.write_json("control.json", {"measured": bool(multiples), "multiples": sorted(multiples)})
    stop = threading.Event()
    first = max(multiples, default=1)

    def train(multiple: int) -> None:
        # Gold has no teacher: whatever the student learns from one, its twin learns from labels alone. So it does where
        # the student learns from verdicts.
        objective = {"sft": 1.0} if needs(recipe) or samples(recipe) else recipe.objective
        longer = recipe.model_copy(update={"steps": recipe.steps * multiple, "objective": objective})
        job.notes[f"training_{multiple}x"] = training.run(
            _watched(job, stop, talks=multiple == first),
            examples=examples,
            start=job.inputs["start"].local("model"),
            recipe=longer,
            out=job.draft.content / f"model_{multiple}x",
            name=f"control_{multiple}x",
        )

    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // recipe.threads)) as pool:
        runs = [pool.submit(train, multiple) for multiple in multiples]
        try:
            for run in as_completed(runs):
                run.result()
        except BaseException:
            # The others end at their next logged step instead of training on for a stage that has failed.
            stop.set()
            for run in runs:
                run.cancel()
            raise
    job.notes["counts"] = {"examples": len(examples)}


def _watched(job: Job, stop: threading.Event, talks: bool) -> Job:
    """The job as one of several trainings sees it: it ends on `stop`, and only one talks to Dagster and the bar."""

    def progress(done: int, total: int | None, note: str = "") -> None:
        if stop.is_set():
            raise TrainingError(f"{job.node.key[0]}/{job.node.key[1]}", "stopped, because another control failed.", "")
        if talks:
            job.progress(done, total, note)

    session = job.services.training_session if talks else no_session
    return replace(job, services=replace(job.services, progress=progress, training_session=session))
