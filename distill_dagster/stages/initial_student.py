"""`initial_student`: what the student starts from, read before it is trained by whatever needs a student early."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.records.messages import text_of
from distill_dagster.stages import models, seeds, training
from distill_dagster.stages.context import PipelineContext
from distill_dagster.storage.store import Store

VERSION = "2"

#: A student that starts from a pipeline's, another's or an earlier one of its own: `pipeline:NAME@champion`.
FROM_PIPELINE = "pipeline:"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/initial_student`."""
    student = pipeline.config.student
    parents: tuple[Parent, ...] = ()
    local = False
    if student.base.startswith(FROM_PIPELINE):
        other, _, alias = student.base.removeprefix(FROM_PIPELINE).partition("@")
        start = Parent("start", (other, "deployed_student"))
        parents = (start,)
        if other == pipeline.key:  # a warm start: its own student cannot be made first, so an earlier one is read
            start = replace(start, resolve=lambda store: champion(pipeline, store, alias or "champion"))
            # Which one that is depends on the data that will be trained on; nothing of it is read here.
            parents = (Parent("data", (pipeline.data, "filtered_dataset"), {}), start)
    elif student.base.startswith("preset:"):
        parents = (Parent("seeds", (pipeline.source.key, "seed_set"), {"seed": ("gold", "unlabeled")}),)
    else:
        local = True
    return Node(
        key=(pipeline.key, "initial_student"),
        version=VERSION,
        parents=parents,
        config={
            **student.model_dump(),
            "seed": pipeline.config.training.seed,
            **(seeds.identity(pipeline) if student.base.startswith("preset:") else {}),
        },
        outside=lambda: reference(pipeline).outside() if local else {},
        make=lambda job: make(job, pipeline),
        title="The student before training: a base model, a preset, or another pipeline's student",
    )


def champion(pipeline: PipelineContext, store: Store, alias: str) -> Mapping[str, str] | None:
    """One's own champion to start from, from the ledger; None where nothing was promoted.

    It is the last one that was trained on other data than there is now, or the first of all: so new data starts from
    the champion so far, and a run that changes nothing finds the start that it had.
    """
    promoted = [entry["payload"] for entry in Ledger(store).promotions(pipeline.key, alias)]
    data = store.head((pipeline.data, "filtered_dataset"))
    now = data["version"] if data is not None else None
    earlier = [one for one in promoted if _trained_on(pipeline, store, one) != now]
    return next(iter(earlier[-1:] or promoted[:1]), None)


def _trained_on(pipeline: PipelineContext, store: Store, promoted: Mapping[str, str]) -> str | None:
    """Version of the data set behind a promoted student."""
    key, version, run = (pipeline.key, "deployed_student"), promoted["version"], promoted["run"]
    for role, above in (("student", "student_checkpoint"), ("data", "filtered_dataset")):
        parents = {entry["role"]: entry for entry in store.open(key, version).run(run)["parents"]}
        key, version, run = (pipeline.key, above), parents[role]["version"], parents[role]["run"]
    return version


def reference(pipeline: PipelineContext) -> models.ModelReference:
    """The base model that config names."""
    student = pipeline.config.student
    return models.resolve(
        student.base, student.revision, pipeline.source, pipeline.folder, f"pipeline {pipeline.key}: student.base"
    )


def make(job: Job, pipeline: PipelineContext) -> None:
    """Put the starting weights into a version."""
    from distill_dagster.models import adapter, folder

    target = job.draft.content / "model"
    if "start" in job.inputs:
        source: Path = training.weights(job.inputs["start"])
        folder.check(source)
        if adapter.is_adapter(source):  # the next student stands on its own
            folder.save(folder.load_model(source), folder.load_tokenizer(source), target)
        else:
            shutil.copytree(source, target)
    elif pipeline.config.student.base.startswith("preset:"):
        _from_preset(job, pipeline)
    else:
        shutil.copytree(
            reference(pipeline).fetched(), target, ignore=shutil.ignore_patterns("manifest.json", "scores*")
        )
    job.notes["counts"] = {"parameters": folder.parameters(target)}


def _from_preset(job: Job, pipeline: PipelineContext) -> None:
    """A preset with random weights, drawn once a seed, and a tokenizer fitted on the inputs that the student may
    see."""
    from distill_dagster.models import folder
    from distill_dagster.training import presets, tokenizer

    rows = job.inputs["seeds"].table("seed", filters=[("part", "in", ["gold", "unlabeled"])]).to_pylist()
    texts = [text_of(row["messages"]) for row in rows] + [row["answer"] for row in rows if row["answer"]]
    place = job.work / "tokenizer"
    tokenizer.fit(texts, pipeline.config.student.vocabulary, place)
    words = folder.load_tokenizer(place)
    name = pipeline.config.student.base.removeprefix("preset:")
    for index in range(pipeline.config.evaluation.seeds):
        model = presets.build(name, words, pipeline.config.training.seed + index)
        folder.save(model, words, job.draft.content / f"model{seeds.suffix(index)}", "fp32")
