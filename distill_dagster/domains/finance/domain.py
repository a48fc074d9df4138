"""The finance domain as a plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distill_dagster.domains.base import Domain, Item, Verdict
from distill_dagster.domains.finance import covenant, covenant_check, payment_fields, routing
from distill_dagster.domains.grammar import Grammar

_MODULES = (routing, payment_fields, covenant)
_GRAMMARS = {
    module.TASK.name: Grammar("finance", module.TASK.name, module.SKELETONS, module.draw) for module in _MODULES
}
_CHECKS = {"routing": routing.verify, "payment_fields": payment_fields.verify, "covenant": covenant_check.verify}


def items(task: str, part: str, count: int, seed: int) -> Iterator[Item]:
    """Authored items of a task and part; the first n do not depend on `count`."""
    return _GRAMMARS[task].items(part, count, seed)


def verify(task: str, facts: Mapping[str, Any], output: str) -> Verdict:
    """Judge an output from the generator's own facts; routing and payment_fields can only be rejected, not proved."""
    return _CHECKS[task](facts, output)


def domain() -> Domain:
    """Entry point of the plugin."""
    return Domain(
        name="finance",
        title="Finance",
        description="Routing of bank messages, fields of payment instructions and covenant tests, all on authored text "
        "about fictional people, banks and borrowers. Not financial advice, and no evidence of financial competence.",
        owners=("team:finance",),
        tasks=tuple(module.TASK for module in _MODULES),
        templates=tuple(template for module in _MODULES for template in module.TEMPLATES),
        items=items,
        verify=verify,
        models=str(Path(__file__).parent / "models"),
        notice="A fictional bank and fictional borrowers; nothing here is financial advice.",
    )
