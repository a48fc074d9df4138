"""What a recipe that learns from the student's own samples needs: verifiers, answers alone, one kind of batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from distill_dagster.config.models import PipelineConfig, Recipe, SourceConfig
from distill_dagster.config.pipeline_checks import OBJECTIVES
from distill_dagster.config.problems import Key, Problem
from distill_dagster.config.registry import load, names
from distill_dagster.config.source_checks import task_names
from distill_dagster.config.yaml_reader import Document


def of_pipeline(
    pipeline: PipelineConfig, document: Document, source: SourceConfig | None, domain: Any
) -> Iterator[Problem]:
    """Problems of a pipeline's recipe; `source` and `domain` are None where they are not known."""
    recipe, key = pipeline.training, ("training",)
    for name, plan in _plans(recipe):
        at: Key = (*key, "objective", name)
        if recipe.prompt_loss_weight:
            reason = f"{name!r} learns from answers alone, and prompt_loss_weight asks for more."
            yield document.problem(at, reason, "Set prompt_loss_weight to 0.")
        if plan.judging is None or source is None or domain is None:
            continue
        own = {spec.name for spec in source.define}
        for task in task_names(source, domain):
            if pipeline.tasks is not None and task not in pipeline.tasks:
                continue
            if domain.verify is None or task in own:
                reason = f"task {task!r} of domain {domain.name!r} has no verifier, and {name!r} learns from verdicts."
                yield document.problem(at, reason, "Name tasks that have one under `tasks`, or use another objective.")


def of_teacher(teacher: Any, document: Document) -> Iterator[Problem]:
    """Problems of a teacher's recipe: nobody judges a teacher that is being fitted."""
    if teacher.fit is not None:
        for name, _ in _plans(teacher.fit.recipe):
            at = ("fit", "recipe", "objective", name)
            reason = f"{name!r} learns from a student's samples, and this is a teacher."
            yield document.problem(at, reason, "Use `sft`.")


def _plans(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """What each sound term of a recipe wants sampled."""
    for name, (weight, params) in recipe.terms.items():
        if not weight or name not in names(OBJECTIVES[0]):
            continue
        objective = load(OBJECTIVES[0], name, OBJECTIVES[1], "objective")
        if getattr(objective, "feed", None) != "rollouts":
            continue
        try:
            yield name, objective(objective.Params.model_validate(params)).plan
        except ValidationError:
            continue  # told where parameters are checked
