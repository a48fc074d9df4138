"""What a pipeline's classifiers answer: the labels of its one task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill_dagster.errors import ModelError
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.models import ModelReference

TEXT = "For free text take a causal language model."


def task_labels(pipeline: PipelineContext, place: str) -> tuple[str, ...]:
    """The labels of the pipeline's task, which a classifier answers.

    Raises:
        ModelError: It teaches several tasks, or one whose answers are not fixed labels.
    """
    if len(pipeline.known_tasks) != 1:
        raise ModelError(
            place,
            f"a classifier answers one task, and pipeline {pipeline.key!r} teaches {', '.join(pipeline.known_tasks)}.",
            "Name one in `tasks`, and give each its own pipeline.",
        )
    (task,) = pipeline.tasks.values()
    if task.kind != "label" or len(task.labels) < 2:
        raise ModelError(
            place,
            f"a classifier answers with a label, and task {task.name!r} is of kind {task.kind!r}"
            + (" without fixed labels." if task.kind == "label" else "."),
            f"Use it for a task of kind `label`. {TEXT}",
        )
    return task.labels


def head_labels(pipeline: PipelineContext, reference: ModelReference, place: str) -> tuple[str, ...]:
    """The labels of the head that a model gets where it starts from this reference; empty where it is causal.

    Raises:
        ModelError: It is a classifier, and the pipeline's task is not for one.
    """
    return task_labels(pipeline, place) if reference.sort() != "causal" else ()


def require_labels(folder: Path, wanted: Sequence[str], place: str) -> None:
    """ModelError where a classifier's folder does not answer exactly these labels, in whatever order."""
    theirs = folder_labels(folder)
    lacks = [label for label in wanted if label not in theirs]
    beyond = [label for label in theirs if label not in wanted]
    if lacks or beyond:
        parts = [f"it lacks {shown(lacks)}"] if lacks else []
        parts += [f"the task has no {shown(beyond)}"] if beyond else []
        raise ModelError(
            place,
            f"the classifier in {folder} does not answer the task's labels: {'; '.join(parts)}.",
            "Rename id2label in its config.json, or start from an encoder without a head.",
        )


def beyond_task(pipeline: PipelineContext, folder: Path, place: str) -> list[str]:
    """Labels of a classifier that teaches as it is which the task does not have: `schema` drops such answers.

    Raises:
        ModelError: It has none of the task's labels, or the task is not for a classifier.
    """
    wanted, theirs = task_labels(pipeline, place), folder_labels(folder)
    if not set(wanted) & set(theirs):
        raise ModelError(
            place,
            f"the classifier in {folder} answers none of the task's labels ({shown(wanted)}), but {shown(theirs)}.",
            "Rename id2label in its config.json.",
        )
    return [label for label in theirs if label not in wanted]


def folder_labels(folder: Path) -> list[str]:
    """The labels of a classifier's folder, from its config alone."""
    from distill_dagster.models import classifier

    return classifier.folder_labels(folder)


def shown(labels: Sequence[str]) -> str:
    """Some labels for a message."""
    from distill_dagster.models import classifier

    return classifier.shown(labels)
