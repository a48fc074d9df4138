"""Made-up examinations whose verdict is known."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from distill_dagster.domains.base import Task
from distill_dagster.evaluation.protocol import Options, Report, examine

ROUTING = Task("routing", "label", "Routing", "Which desk a message goes to.", ("fee", "refund", "fraud", "limit"))
FIELDS = Task("fields", "text", "Payment fields", "Amount and date.")
SUMS = Task("sums", "verified", "Sums", "A worked-out number.")

#: Shares of right answers with which distillation helps beyond every budget.
GOOD = {
    "linear_teacher": 0.5,
    "teacher": 0.92,
    "linear_gold": 0.35,
    "control_1": 0.45,
    "control_2": 0.48,
    "control_4": 0.5,
    "student": 0.78,
}


def arm(share: float, count: int, offset: int = 0) -> np.ndarray:
    """Scores with exactly that share of ones, in an order that `offset` decides."""
    scores = np.zeros(count)
    scores[: round(share * count)] = 1
    return np.random.RandomState(offset).permutation(scores)


def items(task: Task, count: int, each: int = 1, subject: str | None = None) -> list[dict[str, Any]]:
    """Evaluation items of one task, `each` of them to a subject."""
    return [
        {
            "record_id": f"{task.name}-{i}",
            "task": task.name,
            "subject_key": f"{subject or task.name}-{i // each}",
            "answer": task.labels[i % len(task.labels)] if task.labels else "x",
        }
        for i in range(count)
    ]


def one(shares: Mapping[str, float], task: Task = ROUTING, count: int = 600, **options: Any) -> dict[str, Any]:
    """The task entry of an examination of one task."""
    report = examine(items(task, count), arms(shares, count), Options(tasks=(task,), resamples=500, **options))
    return report.content["tasks"][0]


def arms(shares: Mapping[str, float], count: int) -> dict[str, np.ndarray]:
    """Arms with those shares, independent of each other."""
    return {name: arm(share, count, offset) for offset, (name, share) in enumerate(shares.items())}


def three(**options: Any) -> Report:
    """Three tasks: one helped, one where the teacher knows no more than word counts, one without effect."""
    tasks, count = (ROUTING, FIELDS, SUMS), 300
    table: dict[str, list[np.ndarray]] = {}
    for index, changed in enumerate(({}, {"linear_teacher": 0.92}, {"student": 0.45})):
        for offset, (name, share) in enumerate({**GOOD, **changed}.items()):
            table.setdefault(name, []).append(arm(share, count, 20 * index + offset))
    listed = [item for task in tasks for item in items(task, count, each=2)]
    return examine(
        listed,
        {name: np.concatenate(parts) for name, parts in table.items()},
        Options(tasks=tasks, title="finance", resamples=500, **options),
    )
