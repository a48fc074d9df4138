"""Paired training seeds: the student and the controls of one seed share initial weights and data order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill_dagster.config.models import Recipe
from distill_dagster.errors import TrainingError
from distill_dagster.lineage.engine import Job, no_session
from distill_dagster.stages.context import PipelineContext
from distill_dagster.storage.store import Version


def identity(pipeline: PipelineContext) -> dict[str, Any]:
    """How many seeds, where there are several: what a stage's action key says of them."""
    count = pipeline.config.evaluation.seeds
    return {"seeds": count} if count > 1 else {}


def recipe(of: Recipe, index: int) -> Recipe:
    """The recipe of seed number `index`, counted from 0."""
    return of.model_copy(update={"seed": of.seed + index})


def suffix(index: int) -> str:
    """What the names of a seed's files end with; nothing for the first."""
    return f"_s{index}" if index else ""


def start(version: Version, index: int) -> Path:
    """The weights that seed `index` starts from: its own where `initial_student` drew some, else those of all."""
    own = f"model{suffix(index)}"
    return version.local(own if f"{own}/config.json" in version.manifest["files"] else "model")


def median(scores: Sequence[float]) -> int:
    """Index of the median, the lower one of two; of equals the first that makes it the median."""
    order = sorted(range(len(scores)), key=lambda index: (scores[index], index))
    return order[(len(order) - 1) // 2]


def side_by_side(job: Job, trainings: Mapping[str, Callable[[Job], dict[str, Any]]], threads: int) -> None:
    """Run trainings at once, as many as there are cores for, and note each one's summary under its name.

    The first of them talks to Dagster and moves the bar. Where one fails, the others end at their next logged step.
    """
    stop = threading.Event()
    talks = next(iter(trainings), None)
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // threads)) as pool:
        runs = {pool.submit(train, _watched(job, stop, name == talks)): name for name, train in trainings.items()}
        try:
            for run in as_completed(runs):
                job.notes[runs[run]] = run.result()
        except BaseException:
            stop.set()
            for run in runs:
                run.cancel()
            raise


def _watched(job: Job, stop: threading.Event, talks: bool) -> Job:
    """The job as one of several trainings sees it: it ends on `stop`, and only one talks to Dagster and the bar."""

    def progress(done: int, total: int | None, note: str = "") -> None:
        if stop.is_set():
            raise TrainingError(f"{job.node.key[0]}/{job.node.key[1]}", "stopped, because another training failed.", "")
        if talks:
            job.progress(done, total, note)

    session = job.services.training_session if talks else no_session
    return replace(job, services=replace(job.services, progress=progress, training_session=session))
