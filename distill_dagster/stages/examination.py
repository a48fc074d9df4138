"""Putting a student's weights to a pipeline's items, and scoring answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_dagster.evaluation import metrics
from distill_dagster.evaluation.examine_model import measure
from distill_dagster.knowledge import prompts as prompting
from distill_dagster.knowledge.labeling import split_rationale
from distill_dagster.stages import teaching
from distill_dagster.stages.context import PipelineContext, facts_of

Rows = list[dict[str, Any]]

#: Room for the explanation of a student that gives one before it answers.
RATIONALE_TOKENS = 256


def ask_student(
    folder: Path,
    name: str,
    pipeline: PipelineContext,
    styles: Mapping[tuple[str, str], Any],
    items: Rows,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[str], dict[str, float]]:
    """A student's answers to items, by the short prompt, and what they took.

    One that was taught to explain first gets room for that, and only what follows is its answer.
    """
    tasks = pipeline.tasks
    worked = pipeline.config.training.rationale.mode == "in_answer"
    room = RATIONALE_TOKENS if worked else 0
    said, used = measure(
        teaching.open_student(folder, name, pipeline),
        [prompting.render(styles[item["task"], "short"], item) for item in items],
        [{"max_new_tokens": tasks[item["task"]].max_new_tokens + room} for item in items],
        progress=progress,
    )
    if worked:
        said = [text if (answer := split_rationale(text)[1]) is None else answer for text in said]
    return said, used


def scores(pipeline: PipelineContext, items: Rows, outputs: Sequence[str]) -> list[float]:
    """One score an item against its gold answer, by the metric of its task; 0 where there is none."""
    found = [0.0] * len(items)
    for name, task in pipeline.tasks.items():
        where = [index for index, item in enumerate(items) if item["task"] == name]
        own = metrics.score_all(
            task,
            [outputs[index] for index in where],
            [items[index]["answer"] for index in where],
            [facts_of(items[index]) for index in where],
            pipeline.source.domain.verify,
        )
        for index, score in zip(where, own, strict=True):
            found[index] = score
    return found
