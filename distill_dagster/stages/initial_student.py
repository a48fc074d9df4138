"""`initial_student`: what the student starts from, read before it is trained by whatever needs a student early."""

from __future__ import annotations

import shutil
from pathlib import Path

from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records.messages import text_of
from distill_dagster.stages import models
from distill_dagster.stages.context import PipelineContext

VERSION = "2"

#: A student that starts from another pipeline's: `pipeline:NAME` or `pipeline:NAME@champion`.
FROM_PIPELINE = "pipeline:"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/initial_student`."""
    student = pipeline.config.student
    parents: tuple[Parent, ...] = ()
    local = False
    if student.base.startswith(FROM_PIPELINE):
        other = student.base.removeprefix(FROM_PIPELINE).split("@")[0]
        parents = (Parent("start", (other, "deployed_student")),)
    elif student.base.startswith("preset:"):
        parents = (Parent("seeds", (pipeline.source.key, "seed_set"), {"seed": ("gold", "unlabeled")}),)
    else:
        local = True
    return Node(
        key=(pipeline.key, "initial_student"),
        version=VERSION,
        parents=parents,
        config={**student.model_dump(), "seed": pipeline.config.training.seed},
        outside=lambda: reference(pipeline).outside() if local else {},
        make=lambda job: make(job, pipeline),
        title="The student before training: a base model, a preset, or another pipeline's student",
    )


def reference(pipeline: PipelineContext) -> models.ModelReference:
    """The base model that config names."""
    student = pipeline.config.student
    return models.resolve(
        student.base, student.revision, pipeline.source, pipeline.folder, f"pipeline {pipeline.key}: student.base"
    )


def make(job: Job, pipeline: PipelineContext) -> None:
    """Put the starting weights into a version."""
    from distill_dagster.models import folder

    target = job.draft.content / "model"
    if "start" in job.inputs:
        source: Path = job.inputs["start"].local("model")
        folder.check(source)
        shutil.copytree(source, target)
    elif pipeline.config.student.base.startswith("preset:"):
        _from_preset(job, pipeline, target)
    else:
        shutil.copytree(
            reference(pipeline).fetched(), target, ignore=shutil.ignore_patterns("manifest.json", "scores*")
        )
    job.notes["counts"] = {"parameters": folder.parameters(target)}


def _from_preset(job: Job, pipeline: PipelineContext, target: Path) -> None:
    """A preset with random weights and a tokenizer fitted on the inputs that the student may see."""
    from distill_dagster.models import folder
    from distill_dagster.training import presets, tokenizer

    seeds = job.inputs["seeds"].table("seed", filters=[("part", "in", ["gold", "unlabeled"])]).to_pylist()
    texts = [text_of(row["messages"]) for row in seeds] + [row["answer"] for row in seeds if row["answer"]]
    place = job.work / "tokenizer"
    tokenizer.fit(texts, pipeline.config.student.vocabulary, place)
    words = folder.load_tokenizer(place)
    name = pipeline.config.student.base.removeprefix("preset:")
    model = presets.build(name, words, pipeline.config.training.seed)
    folder.save(model, words, target, "fp32")
