"""What `trainer: trl` cannot do as a recipe says: told by `check` with file and key, and again before training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from distill_dagster.config.problems import Key, Problem
from distill_dagster.config.recipe import Recipe
from distill_dagster.config.registry import load, names
from distill_dagster.config.yaml_reader import Document
from distill_dagster.errors import ConfigError

BUILTIN = "Leave out `trainer: trl`: the built-in trainer can."
_OBJECTIVES = "distill_dagster.training.objectives"

#: Key, reason and next step.
Fault = tuple[Key, str, str]


def of_recipe(recipe: Recipe, key: Key, document: Document) -> Iterator[Problem]:
    """Problems of a recipe that stands at `key` of a file."""
    for at, reason, hint in faults(recipe):
        yield document.problem((*key, *at), reason, hint)


def refuse(recipe: Recipe) -> None:
    """Refuse a recipe that TRL's trainers cannot follow.

    Raises:
        ConfigError: Names the first key that stands against it.
    """
    for at, reason, hint in faults(recipe):
        raise ConfigError(".".join(["training", *map(str, at)]), reason, hint)


def faults(recipe: Recipe) -> Iterator[Fault]:
    """What stands against a recipe; nothing where its trainer is the built-in one."""
    if recipe.trainer != "trl":
        return
    yield from _objective(recipe)
    if recipe.processes > 1:
        yield ("processes",), "through TRL a run takes one process here, and this asks for several.", BUILTIN
    if recipe.packing:
        yield ("packing",), "TRL's preference and reinforcement trainers pad their batches.", BUILTIN
    if recipe.early_stop is not None:
        reason = "runs through TRL look at no validation records; their losses are of pairs or of verdicts."
        yield ("early_stop",), reason, BUILTIN
    if recipe.linear_probe is not None:
        yield ("linear_probe",), "TRL's trainers train models that write, which have no head to fit.", "Leave it out."
    if recipe.adapter is not None and recipe.adapter.kind == "qlora":
        yield ("adapter", "kind"), "a base in 4 bits is not trained through TRL here.", "Use `kind: lora`."


def _objective(recipe: Recipe) -> Iterator[Fault]:
    """What stands against the objective: TRL takes `dpo`, also with `sft` beside it, or `grpo` alone."""
    asked = {name: params for name, (weight, params) in recipe.terms.items() if weight}
    own = next((name for name in ("dpo", "grpo") if name in asked), None)
    if own is None:
        hint = "Learn by `dpo` or `grpo`, or leave out `trainer: trl`."
        yield ("trainer",), f"TRL's stable trainers are used for `dpo` and `grpo`, and this is {_and(asked)}.", hint
        return
    for name in asked:
        if name != own and not (own == "dpo" and name == "sft"):
            reason = f"TRL's stable {own.upper()}Trainer has no term like {name!r} beside {own!r}."
            yield ("objective", name), reason, BUILTIN
    at: Key = ("objective", own)
    params = _params(own, asked[own])
    if own == "dpo" and params is not None and params.label_smoothing:
        yield (*at, "label_smoothing"), "TRL's sigmoid loss does not smooth labels.", "Set it to 0, or " + _lower()
    if own == "grpo" and params is not None:
        yield from _grpo(recipe, params, at)


def _grpo(recipe: Recipe, params: Any, at: Key) -> Iterator[Fault]:
    if params.equal_groups == "drop":
        reason = "TRL keeps groups of equal rewards in the mean, and `drop`, the default, leaves them out."
        yield (*at, "equal_groups"), reason, "Write `equal_groups: keep`, or " + _lower()
    for name in ("buffer", "max_age"):
        if getattr(params, name) is not None:
            yield (*at, name), "TRL keeps no samples beyond those of the last time.", "Leave it out, or " + _lower()
    if recipe.terms["grpo"][0] != 1:
        yield (*at, "weight"), "TRL's GRPOTrainer weighs nothing against its loss.", "Set it to 1."
    samples = params.prompts * params.group
    if samples % params.every:
        reason = f"TRL shares the {samples} samples (prompts × group) evenly over {params.every} steps."
        yield (*at, "every"), reason, f"Make `every` a divisor of {samples}."
    if recipe.accumulate > 1:
        reason = "with TRL a step of `grpo` takes prompts × group / every samples, in batches that fit batch_tokens."
        yield ("accumulate",), reason, "Leave it out."


def _params(name: str, given: dict[str, Any]) -> Any:
    """Parameters of an objective; None where they have faults, which are told elsewhere."""
    if name not in names(_OBJECTIVES):
        return None
    try:
        return load(_OBJECTIVES, name, "Objective", "objective").Params.model_validate(given)
    except ValidationError:
        return None


def _and(asked: dict[str, Any]) -> str:
    return " and ".join(f"`{name}`" for name in asked)


def _lower() -> str:
    return BUILTIN[0].lower() + BUILTIN[1:]
