"""What a pipeline or teacher file says about blocks, presets, schedules and models: is it there, does it take that?"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from distill_dagster.config import faults, paths, schedule, trl_checks
from distill_dagster.config.models import Block, PipelineConfig, Recipe
from distill_dagster.config.problems import Key, Problem
from distill_dagster.config.registry import blocks, load, nearest
from distill_dagster.config.strict import COMMIT_HINT, is_commit
from distill_dagster.config.yaml_reader import Document
from distill_dagster.errors import ConfigError

#: Where each sort of block lives, and the attribute that makes a module one.
FILTERS = ("distill_dagster.filtering", "Rule")
ARMS = ("distill_dagster.stages.arms", "Arm")
KNOWLEDGE = ("distill_dagster.knowledge", "Kind")
OBJECTIVES = ("distill_dagster.training.objectives", "Objective")
BACKENDS = ("distill_dagster.teachers", "Backend")

#: Options of filter rules that name tasks.
_OF_TASKS = {"schema": "forms", "verifier": "tasks"}
_DOMAIN_MODELS = ("teacher", "student_base")


def starts_from(pipeline: PipelineConfig) -> str | None:
    """Name of the pipeline whose student this one starts from, if it does."""
    base = pipeline.student.base
    return base.removeprefix("pipeline:").partition("@")[0] if base.startswith("pipeline:") else None


def of_pipeline(pipeline: PipelineConfig, document: Document, tasks: Sequence[str] | None) -> Iterator[Problem]:
    """Problems of a pipeline file; `tasks` are those of its source, None where unknown."""
    for field, place in (("knowledge", KNOWLEDGE), ("filtering", FILTERS)):
        for index, block in enumerate(getattr(pipeline, field)):
            yield from _block(block, place, (field, index), document)
    for index, name in enumerate(pipeline.control.arms):
        if name not in blocks(*ARMS):
            key = ("control", "arms", index)
            yield document.problem(key, f"unknown arm {name!r}.", nearest(name, blocks(*ARMS)))
    yield from _knowledge(pipeline, document, tasks)
    yield from _filtering(pipeline, document, tasks)
    yield from _recipe(pipeline.training, ("training",), document)
    yield from _head(pipeline.student.base, pipeline.training, ("training",), document)
    if pipeline.student.base != "teacher":
        yield from _model(pipeline.student.base, pipeline.student.revision, ("student", "base"), document)
    if pipeline.student.architecture is not None:
        yield from _architecture(pipeline.student.architecture, document)
    yield from _one_task(pipeline, document, tasks)
    fault = schedule.cron_fault(pipeline.schedule.cron)
    if fault:
        yield document.problem(("schedule", "cron"), f"{fault}.", "For example `0 3 * * 1`: Mondays at three.")
    fault = schedule.timezone_fault(pipeline.schedule.timezone)
    if fault:
        yield document.problem(("schedule", "timezone"), f"{fault}.", _near_zone(pipeline.schedule.timezone))
    for index, task in enumerate(pipeline.tasks or () if tasks is not None else ()):
        if task not in (tasks or ()):
            yield document.problem(("tasks", index), f"the source has no task {task!r}.", nearest(task, tasks or ()))
    for task in pipeline.gate.floor if tasks is not None else ():
        if task not in (tasks or ()):
            yield document.problem(
                ("gate", "floor", task), f"the source has no task {task!r}.", nearest(task, tasks or ())
            )


def _architecture(text: str, document: Document) -> Iterator[Problem]:
    """Is the model configuration that a plan would read there?"""
    key = ("student", "architecture")
    try:
        path = paths.resolve(text, document.path.parent, str(document.path))
    except ConfigError as error:
        yield document.problem(key, error.reason, error.next_step)
        return
    if not path.is_file():
        yield document.problem(key, f"there is no file {text!r} beside this one.", "Copy the model's config.json.")


def _head(base: str, recipe: Recipe, key: Key, document: Document) -> Iterator[Problem]:
    """A model that writes has no head to fit, as far as its name tells."""
    scheme, _, name = base.partition(":")
    if recipe.linear_probe is None or recipe.trainer == "trl" or scheme not in ("preset", "domain"):
        return
    presets = importlib.import_module("distill_dagster.training.presets")
    if scheme == "domain" or (name in presets.PRESETS and not presets.is_encoder(name)):
        reason = f"it fits a classifier's head, and {base} is a model that writes."
        yield document.problem((*key, "linear_probe"), reason, "Leave it out, or start from an encoder.")


def _one_task(pipeline: PipelineConfig, document: Document, tasks: Sequence[str] | None) -> Iterator[Problem]:
    """A student from an encoder's preset answers one task."""
    taught = pipeline.tasks if pipeline.tasks is not None else tasks
    scheme, _, name = pipeline.student.base.partition(":")
    if scheme != "preset" or taught is None or len(taught) < 2:
        return
    presets = importlib.import_module("distill_dagster.training.presets")
    if name in presets.PRESETS and presets.is_encoder(name):
        reason = f"a classifier answers one task, and this pipeline teaches {', '.join(taught)}."
        yield document.problem(("student", "base"), reason, "Name one in `tasks`, and give each its own pipeline.")


def _knowledge(pipeline: PipelineConfig, document: Document, tasks: Sequence[str] | None) -> Iterator[Problem]:
    """What kinds of knowledge need elsewhere in the file."""
    for index, block in enumerate(pipeline.knowledge):
        if block.name == "self_knowledge" and all(rule.name != "verifier" for rule in pipeline.filtering):
            reason = (
                "self_knowledge keeps the samples that a verifier finds right, but `filtering` lists no `verifier`."
            )
            yield document.problem(("knowledge", index), reason, "Add `verifier` to `filtering`.")
        topics = block.params.get("topics")
        if block.name == "curation" and isinstance(topics, Mapping) and tasks is not None:
            for name in topics:
                if name not in tasks:
                    key = ("knowledge", index, "topics", name)
                    yield document.problem(key, f"the source has no task {name!r}.", nearest(str(name), tasks))


def _filtering(pipeline: PipelineConfig, document: Document, tasks: Sequence[str] | None) -> Iterator[Problem]:
    """What filter rules and people's review need elsewhere in the file."""
    judged = any(block.name == "feedback" and block.params.get("method") == "rate" for block in pipeline.knowledge)
    for index, block in enumerate(pipeline.filtering):
        if block.name == "judge_score" and not judged:
            reason = "judge_score reads ratings, but no `knowledge` gives any."
            yield document.problem(("filtering", index), reason, "Add `{name: feedback, method: rate}` to `knowledge`.")
        criterion = block.params.get("criterion")
        if block.name == "judge_score" and judged and criterion is not None and criterion not in _criteria(pipeline):
            known = sorted(_criteria(pipeline))
            reason = f"no `knowledge` rates by {criterion!r}, so no answer would have a score."
            key = ("filtering", index, "criterion")
            yield document.problem(key, reason, nearest(str(criterion), known) or f"Known: {', '.join(known)}.")
        option = _OF_TASKS.get(block.name)
        named = block.params.get(option) if option is not None else None
        for at, name in enumerate(named if tasks is not None and isinstance(named, Mapping | list) else ()):
            if name not in (tasks or ()):
                key = ("filtering", index, option or "", name if isinstance(named, Mapping) else at)
                yield document.problem(key, f"the source has no task {name!r}.", nearest(str(name), tasks or ()))
    for task in pipeline.review.critical_errors if pipeline.review is not None and tasks is not None else ():
        if task not in (tasks or ()):
            key = ("review", "critical_errors", task)
            yield document.problem(key, f"the source has no task {task!r}.", nearest(task, tasks or ()))


def _criteria(pipeline: PipelineConfig) -> set[str]:
    """What the judges of a pipeline rate."""
    usual = load(KNOWLEDGE[0], "feedback", KNOWLEDGE[1], "knowledge").Params().criteria
    rating = [block.params for block in pipeline.knowledge if block.params.get("method") == "rate"]
    return {str(name) for params in rating for name in params.get("criteria") or usual}


def of_teacher(teacher: Any, document: Document) -> Iterator[Problem]:
    """Problems of a teacher file."""
    known = blocks(*BACKENDS)
    if teacher.backend not in known:
        yield document.problem(("backend",), f"unknown backend {teacher.backend!r}.", nearest(teacher.backend, known))
    if teacher.backend in ("transformers", "vllm"):
        yield from _model(teacher.model, teacher.revision, ("model",), document)
    if teacher.fit is not None:
        yield from _recipe(teacher.fit.recipe, ("fit", "recipe"), document)
        yield from _head(teacher.fit.base or teacher.model, teacher.fit.recipe, ("fit", "recipe"), document)
        if teacher.fit.base is not None:
            yield from _model(teacher.fit.base, teacher.revision, ("fit", "base"), document)


def _near_zone(name: str) -> str:
    import zoneinfo

    return nearest(name, zoneinfo.available_timezones()) if "/" in name or name.isupper() else "Such as Europe/Berlin."


def _block(block: Block, place: tuple[str, str], key: Key, document: Document) -> Iterator[Problem]:
    known = blocks(*place)
    sort = place[0].rpartition(".")[2]
    at = (*key, "name") if (*key, "name") in document.lines else key
    if block.name not in known:
        yield document.problem(at, f"unknown {sort} block {block.name!r}.", nearest(block.name, known))
        return
    if key not in document.lines:
        return
    try:
        parameters = getattr(load(*place[:1], block.name, place[1], sort), "Params", None)
    except Exception as error:
        reason = f"{sort} block {block.name!r} cannot be imported ({type(error).__name__}: {error})."
        yield document.problem(at, reason, "`distill-dagster doctor` shows what is missing.")
        return
    if isinstance(parameters, type) and issubclass(parameters, BaseModel):
        try:
            parameters.model_validate(block.params)
        except ValidationError as error:
            yield from faults.problems(error, parameters, document, key)


def _recipe(recipe: Recipe, key: Key, document: Document) -> Iterator[Problem]:
    yield from trl_checks.of_recipe(recipe, key, document)
    if recipe.early_stop is not None and key != ("training",):
        reason = "validation records are for choices about students; a teacher is fitted on D_T alone."
        yield document.problem((*key, "early_stop"), reason, "Leave it out.")
    yield from _without_effect(recipe, key, document)
    if recipe.adapter is not None and recipe.adapter.save == "adapter" and key != ("training",):
        reason = "a teacher that is fitted is sealed whole, so that every student finds it in one place."
        yield document.problem((*key, "adapter", "save"), reason, "Use `save: merged`.")
    known = blocks(*OBJECTIVES)
    for name, (_, params) in recipe.terms.items():
        at = (*key, "objective", name)
        if name not in known:
            yield document.problem(at, f"unknown objective {name!r}.", nearest(name, known))
            continue
        objective = load(OBJECTIVES[0], name, OBJECTIVES[1], "objective")
        model = getattr(objective, "Params", None)
        if model is None:
            if params:
                yield document.problem(at, f"objective {name!r} takes no parameters.", "Give a weight.")
            continue
        try:
            built = objective(model.model_validate(params))
            need = getattr(built, "need", None)
        except ValidationError as error:
            yield from faults.problems(error, model, document, at)
            continue
        if getattr(objective, "feed", None) == "pairs":
            if key != ("training",):
                yield document.problem(at, "a teacher that is fitted has no preference pairs.", "Use `sft`.")
            elif recipe.prompt_loss_weight:
                reason = "preference pairs compare answers, and prompt_loss_weight asks for the prompt's tokens too."
                yield document.problem(at, reason, "Set prompt_loss_weight to 0.")
        if need is not None and key != ("training",):
            yield document.problem(at, "a teacher that is fitted has no teacher itself.", "Use `sft`.")
        elif recipe.rationale.mode == "multi_task" and (need is not None or hasattr(built, "feed")):
            reason = "rationale.mode multi_task teaches two texts a record; this objective learns from something else."
            yield document.problem(at, reason, "Use `sft`, or another rationale.mode.")
        elif need is not None and need.source == "stored" and recipe.rationale.mode == "in_answer":
            reason = "stored signals are of the answers alone, and rationale.mode in_answer trains on more."
            yield document.problem(at, reason, "Use `signals: live`, or `rationale: {mode: label_only}`.")
        elif need is not None and need.source == "stored" and recipe.prompt_loss_weight:
            reason = "stored signals are of the answer's tokens alone, and prompt_loss_weight asks for more."
            yield document.problem(at, reason, "Set prompt_loss_weight to 0, or `signals: live`.")


def _without_effect(recipe: Recipe, key: Key, document: Document) -> Iterator[Problem]:
    """What a recipe says that nothing would come of, beside what else it says."""
    explains = recipe.rationale.mode != "label_only"
    if key != ("training",):
        if explains:
            reason = "a teacher is fitted on gold answers, and they come without explanations."
            yield document.problem((*key, "rationale", "mode"), reason, "Leave it out.")
        if recipe.gold_repeat > 1:
            reason = "a teacher is fitted on gold alone: repeating all of it changes nothing."
            yield document.problem((*key, "gold_repeat"), reason, "Leave it out, or raise `steps`.")
        return
    pairs = term_on_pairs(recipe)
    if pairs is not None:
        if recipe.gold_repeat > 1:
            reason = f"{pairs!r} learns from preference pairs, and no gold example is among them."
            yield document.problem((*key, "gold_repeat"), reason, "Leave it out.")
        if recipe.early_stop is not None and recipe.trainer == "builtin":
            reason = f"{pairs!r} learns from preference pairs, and validation records are single answers."
            yield document.problem((*key, "early_stop"), reason, "Leave it out.")
    if recipe.rationale.mode != "in_answer":
        return
    judged = "grpo" in recipe.terms and bool(recipe.terms["grpo"][0])
    if pairs is not None or judged:
        kind = "pairs hold answers" if pairs is not None else "verdicts are on answers"
        reason = f"in_answer puts explanations before answers, and {kind} without them ({pairs or 'grpo'!r})."
        yield document.problem((*key, "rationale", "mode"), reason, "Leave it out, or use `sft`.")
    elif recipe.early_stop is not None:
        reason = "validation records have answers without explanations: their loss rises as in_answer is learned."
        yield document.problem((*key, "early_stop"), reason, "Leave it out, or use rationale.mode multi_task.")


def term_on_pairs(recipe: Recipe) -> str | None:
    """Name of the first term of a recipe that learns from preference pairs."""
    known = blocks(*OBJECTIVES)
    for name, (weight, _) in recipe.terms.items():
        if weight and name in known:
            if getattr(load(OBJECTIVES[0], name, OBJECTIVES[1], "objective"), "feed", None) == "pairs":
                return name
    return None


def compares(pipeline: PipelineConfig) -> bool:
    """Whether a kind of knowledge of a pipeline compares answers; a block with a fault is taken to."""
    known = blocks(*KNOWLEDGE)
    for block in pipeline.knowledge:
        if block.name not in known:
            return True
        try:
            kind: Any = load(KNOWLEDGE[0], block.name, KNOWLEDGE[1], "knowledge")
            if kind(kind.Params.model_validate(block.params)).compares():
                return True
        except Exception:  # reported where the block itself is looked at
            return True
    return False


def _model(model: str, revision: str | None, key: Key, document: Document) -> Iterator[Problem]:
    """Is it a model reference: domain:NAME, preset:NAME, pipeline:NAME, a folder, or a hub id with its revision?"""
    scheme, colon, name = model.partition(":")
    if scheme == "preset" and colon:
        known: Mapping[str, Any] = importlib.import_module("distill_dagster.training.presets").PRESETS
        if name not in known:
            yield document.problem(key, f"unknown preset {name!r}.", nearest(name, known))
    elif scheme == "domain" and colon:
        if name not in _DOMAIN_MODELS:
            yield document.problem(key, f"domains ship no model {name!r}.", nearest(name, _DOMAIN_MODELS))
    elif scheme == "pipeline" and colon:
        if key[0] != "student":
            yield document.problem(key, "only a student can start from a pipeline.", "Name a folder or a hub id.")
    elif not paths.is_folder(model) and not (document.path.parent / model).exists() and not is_commit(revision):
        if revision is None:
            reason = f"{model!r} is no folder beside this file, and a hub id needs its `revision`."
            yield document.problem(key, reason, "Add the commit, or start a folder's path with `./`.")
        else:
            at = ("student", "revision") if key[0] == "student" else ("revision",)
            reason = f"hub model {model!r} needs its commit, and {revision!r} is none: a branch or a tag can move."
            yield document.problem(at, reason, COMMIT_HINT)
    else:
        try:
            paths.expand(model, str(document.path))
        except ConfigError as error:
            yield document.problem(key, error.reason, error.next_step)
