"""The law domain as a plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distill_dagster.domains.base import Domain, Item, Verdict
from distill_dagster.domains.grammar import Grammar
from distill_dagster.domains.law import clause_type, deadline, deadline_verifier, duty
from distill_dagster.domains.law.templates import TEMPLATES

NAME = "law"

GRAMMARS = {
    module.TASK.name: Grammar(NAME, module.TASK.name, module.SKELETONS, module.draw)
    for module in (clause_type, duty, deadline)
}
VERIFIERS = {"clause_type": clause_type.verify, "duty": duty.verify, "deadline": deadline_verifier.verify}


def items(task: str, part: str, count: int, seed: int) -> Iterator[Item]:
    """Authored items of one task and part."""
    return GRAMMARS[task].items(part, count, seed)


def verify(task: str, facts: Mapping[str, Any], output: str) -> Verdict:
    """Judge an output of one task from the generator's own numbers."""
    return VERIFIERS[task](facts, output)


def domain() -> Domain:
    """Entry point of the law domain."""
    return Domain(
        name=NAME,
        title="Law",
        description=(
            "Clause types, duties and deadlines in contracts and acts of the fictional jurisdiction of Norland. "
            "Shows that the distillation mechanism works; no evidence of competence in any law."
        ),
        owners=("team:law",),
        tasks=(clause_type.TASK, duty.TASK, deadline.TASK),
        templates=TEMPLATES,
        items=items,
        verify=verify,
        models=str(Path(__file__).parent / "models"),
        notice="Authored text about a fictional jurisdiction: no evidence of legal competence, and no legal advice.",
    )
