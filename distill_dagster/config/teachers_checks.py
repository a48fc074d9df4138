"""What a pipeline says of its teachers, held against them, its tasks and its kinds of knowledge."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence

from distill_dagster.config.models import PipelineConfig, PricesConfig, TeacherConfig
from distill_dagster.config.problems import Problem
from distill_dagster.config.registry import nearest
from distill_dagster.config.yaml_reader import Document

KEY = ("teachers",)
#: Backends that give log-probabilities with their answers.
CAPTURING = ("openai", "vllm")


def problems(
    pipeline: PipelineConfig,
    document: Document,
    tasks: Sequence[str] | None,
    teachers: Mapping[str, TeacherConfig],
    prices: Mapping[str, PricesConfig],
) -> Iterator[Problem]:
    """Problems of a pipeline with its teachers.

    Args:
        pipeline: The pipeline.
        document: Its file.
        tasks: Tasks of its source; None where unknown.
        teachers: Teachers by name; an unknown one is reported elsewhere.
        prices: Prices by name.
    """
    options = pipeline.teachers
    asked = (pipeline.teacher or "",) if options is None else options.names()
    for index, block in enumerate(pipeline.knowledge):
        for name in asked if block.name == "feature" else ():
            if name in teachers and teachers[name].backend not in CAPTURING:
                reason = (
                    f"teacher {name!r} of backend {teachers[name].backend!r} gives no log-probabilities with answers."
                )
                hint = "Use `labeling`: the objective `divergence` asks a local teacher for all of its probabilities."
                yield document.problem(("knowledge", index), reason, hint)
    if options is None:
        return
    for name in options.names():
        if name in teachers and teachers[name].fit is not None:
            reason = f"teacher {name!r} is fitted, and several teachers cannot be fitted in one pipeline."
            yield document.problem(KEY, reason, "Fit it in a pipeline of its own, and name the folder of its weights.")
    currencies = {
        prices[teachers[name].prices or ""].currency
        for name in options.names()
        if name in teachers and (teachers[name].prices or "") in prices
    }
    if len(currencies) > 1:
        reason = f"its teachers are paid in {' and '.join(sorted(currencies))}, which cannot be added up."
        yield document.problem(KEY, reason, "Write their prices in one currency.")
    if _needs_weights(pipeline):
        reason = "the objective needs the probabilities of one teacher, and this pipeline has several."
        yield document.problem(("training", "objective"), reason, "Use `sft`, or one teacher.")
    if options.by_task is not None and tasks is not None:
        for task in options.by_task:
            if task not in tasks:
                yield document.problem(
                    (*KEY, "by_task", task), f"the source has no task {task!r}.", nearest(task, tasks)
                )
        left = [task for task in pipeline.tasks or tasks if task in tasks and task not in options.by_task]
        if left:
            reason = f"`by_task` names no teacher for {', '.join(left)}."
            yield document.problem((*KEY, "by_task"), reason, "Name one, or leave the task out of `tasks`.")
    for index, block in enumerate(pipeline.knowledge):
        if options.vote is not None and block.name != "labeling":
            reason = f"teachers vote on answers to seeds, and {block.name!r} is more than that."
            yield document.problem(
                ("knowledge", index), reason, "Use `labeling`, or divide the work by weight or task."
            )
        if options.weights is not None and block.name == "curation":
            reason = "curation reads no seeds, so weights cannot divide it."
            yield document.problem(("knowledge", index), reason, "Use `by_task`.")


def _needs_weights(pipeline: PipelineConfig) -> bool:
    """Does the recipe ask its teacher for more than text? What is wrong with the recipe itself is said elsewhere."""
    # The ground does not import the core; blocks are looked up by name.
    base = importlib.import_module("distill_dagster.training.objectives.base")
    try:
        return bool(base.needs(pipeline.training))
    except Exception:
        return False
