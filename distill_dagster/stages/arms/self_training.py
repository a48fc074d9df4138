"""Self-training on D_U: the control answers D_U itself, and its twin learns from that in the teacher's place."""

from __future__ import annotations

from distill_dagster.errors import TrainingError
from distill_dagster.stages import examination
from distill_dagster.stages.arms.base import Material, Rows
from distill_dagster.stages.context import prompts_by
from distill_dagster.stages.teacher_model import example_row


class Arm:
    """Pseudo-labels (Lee 2013): if they help as much as the teacher's answers, it was the inputs and no teacher."""

    def __call__(self, material: Material) -> Rows:
        """The rows to train on."""
        job, pipeline = material.job, material.pipeline
        styles = prompts_by(job.inputs["prompts"])
        rows = job.inputs["seeds"].table("seed", filters=[("part", "==", "unlabeled")]).to_pylist()
        items = [row for row in rows if row["task"] in pipeline.known_tasks]
        answers, _ = examination.ask_student(
            material.control,
            "the control labels D_U",
            pipeline,
            styles,
            items,
            progress=lambda done, total: job.progress(done, total, "the control labels D_U"),
        )
        said = [
            example_row(item, styles[item["task"], "short"], answer.strip(), "self")
            for item, answer in zip(items, answers, strict=True)
            if answer.strip()
        ]
        if not said:
            raise TrainingError(
                f"{pipeline.key}/control_checkpoint, arm self_training",
                f"the control answered none of the {len(items)} records of D_U.",
                "Leave `self_training` out of control.arms, or train the control for longer.",
            )
        return material.gold + said
