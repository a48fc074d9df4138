"""What a training process needs to reward a student's samples: the records' facts and gold, and whose verifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Parent
from distill_dagster.stages.context import PipelineContext
from distill_dagster.training.objectives.base import samples

FILE = "rewards.parquet"


def rewarded(pipeline: PipelineContext) -> bool:
    """Does the recipe learn from verdicts on the student's samples?"""
    return any(plan.judging is not None for plan in samples(pipeline.config.training))


def parents(pipeline: PipelineContext) -> tuple[Parent, ...]:
    """The seeds, whose facts the verifier reads; none where nothing is rewarded."""
    if not rewarded(pipeline):
        return ()
    return (Parent("seeds", (pipeline.source.key, "seed_set"), {"seed": ("gold", "unlabeled")}),)


def identity(pipeline: PipelineContext) -> dict[str, Any]:
    """Whose verdicts they are, for the action key; nothing where nothing is rewarded."""
    if not rewarded(pipeline):
        return {}
    domain, names = pipeline.source.domain, set(pipeline.known_tasks)
    versions = {task.name: task.version for task in domain.tasks if task.name in names}
    return {"rewards": {"domain": domain.name, "verifier": domain.verifier_version, "tasks": versions}}


def task(job: Job, pipeline: PipelineContext, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write what the process reads, and return what its task says of it.

    A record that a teacher wrote anew has no facts of its own. Gold answers go along for gold records alone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    seeds = job.inputs["seeds"].table("seed", ["record_id", "facts", "answer"], [("part", "in", ["gold", "unlabeled"])])
    known = {row["record_id"]: row for row in seeds.to_pylist()}
    rows = []
    for example in examples:
        seed = None if example["origins"] else known.get(example["seed_record_id"])
        if seed is None:
            continue
        answer = seed["answer"] if example["origin"] == "gold" else None
        if seed["facts"] or answer is not None:
            about = {"record_id": example["record_id"], "task": example["task"]}
            rows.append({**about, "facts": seed["facts"], "answer": answer})
    columns = pa.schema([(name, pa.string()) for name in ("record_id", "task", "facts", "answer")])
    path = job.work / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, columns), path)
    domain = pipeline.source.domain
    labels = {name: list(one.labels) for name, one in pipeline.tasks.items()}
    said = {"path": str(path), "domain": domain.name, "version": domain.verifier_version, "labels": labels}
    return {"rewards": said}
