"""The medicine plugin: assertion status, laboratory flags and doses from fictional monographs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from distill_dagster.domains.base import Domain, Item, Verdict
from distill_dagster.domains.grammar import Grammar
from distill_dagster.domains.medicine import assertion, dose, lab_flags

NAME = "medicine"
_TASKS = {module.NAME: module for module in (assertion, lab_flags, dose)}


@cache
def _grammar(task: str) -> Grammar:
    module = _TASKS[task]
    return Grammar(NAME, task, module.SKELETONS, module.draw)


def items(task: str, part: str, count: int, seed: int) -> Iterator[Item]:
    """Authored items of one task and part."""
    return _grammar(task).items(part, count, seed)


def verify(task: str, facts: Mapping[str, Any], output: str) -> Verdict:
    """Judge an output from the facts of its item."""
    if task not in _TASKS:
        return Verdict(None, f"no task {task!r}")
    return _TASKS[task].verify(facts, output)


def domain() -> Domain:
    """Entry point of the plugin."""
    return Domain(
        name=NAME,
        title="Medicine",
        description="Reading of invented clinical text about adults: status of a finding, flags by a laboratory's own "
        "ranges, doses of drugs that do not exist. It shows a mechanism and is no evidence of medical competence.",
        owners=("team:clinical-nlp",),
        tasks=tuple(module.TASK for module in _TASKS.values()),
        templates=tuple(template for module in _TASKS.values() for template in module.TEMPLATES),
        items=items,
        verify=verify,
        models=str(Path(__file__).parent / "models"),
        notice="Fictional patients, ranges and drugs, non-pregnant adults only. No medical advice, not for care.",
    )
