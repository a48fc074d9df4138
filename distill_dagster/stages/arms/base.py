"""What a further arm is: other examples for the student's twin, trained as long as the student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distill_dagster.lineage.engine import Job
from distill_dagster.stages.context import PipelineContext

PACKAGE = "distill_dagster.stages.arms"

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Material:
    """What an arm may draw from.

    Attributes:
        job: The stage at work; its inputs `seeds` and `prompts` hold D_U.
        pipeline: Whose control it stands beside.
        gold: The gold examples that student and control see (EXAMPLE rows).
        control: Weights of the control of the same seed at the student's own budget.
    """

    job: Job
    pipeline: PipelineContext
    gold: Rows
    control: Path


class Arm(Protocol):
    """One further arm, a class `Arm` in a file of its name."""

    def __call__(self, material: Material) -> Rows:
        """The EXAMPLE rows to train on.

        Raises:
            TrainingError: There is nothing this arm could learn from.
        """
        ...
