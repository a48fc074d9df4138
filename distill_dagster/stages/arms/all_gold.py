"""Gold answers to all of D_U: what the teacher's answers are worth at most, were every one of them right."""

from __future__ import annotations

from distill_dagster.errors import TrainingError
from distill_dagster.stages.arms.base import Material, Rows
from distill_dagster.stages.teacher_model import gold_examples


class Arm:
    """D_G and D_U, both with their gold answers; nobody has them in production, so this is a ceiling and no rival."""

    def __call__(self, material: Material) -> Rows:
        """The rows to train on."""
        job, pipeline = material.job, material.pipeline
        answered = gold_examples(job.inputs["seeds"], job.inputs["prompts"], "unlabeled", pipeline.source.domain)
        rows = [row for row in answered if row["task"] in pipeline.known_tasks]
        if not rows:
            raise TrainingError(
                f"{pipeline.key}/control_checkpoint, arm all_gold",
                "no record of D_U has a gold answer.",
                "Leave `all_gold` out of control.arms.",
            )
        return material.gold + rows
