"""Leakage between seeds and evaluation: the blocking check, and dropping leaking seeds where a source says so."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill_dagster.errors import GateError
from distill_dagster.filtering._leakage import leaks, parts, texts_of
from distill_dagster.filtering._minhash import near_pairs
from distill_dagster.filtering._text import fold
from distill_dagster.stages.context import SourceContext

#: Kinds of leakage that block; `folded` and `near` include the kinds before them.
KINDS = ("record", "folded", "subject", "near")


def measure(seeds: pa.Table, evals: pa.Table) -> dict[str, Any]:
    """How many evaluation rows the seed set gives away, by kind, task by task (a subject too), with samples."""
    total: dict[str, Any] = dict.fromkeys(KINDS, 0) | {"samples": []}
    tasks = sorted(set(seeds["task"].to_pylist()) & set(evals["task"].to_pylist()))
    for task in tasks:
        found = leaks(_of_task(seeds, task), _of_task(evals, task))
        for kind in KINDS:
            total[kind] += found[kind]
        total["samples"] += [{"task": task, **sample} for sample in found["samples"]]
    return total


def require_none(source: SourceContext, seeds: pa.Table, evals: pa.Table) -> None:
    """Refuse to go on with leaking seeds.

    Raises:
        GateError: Names how many rows leak, by kind.
    """
    found = measure(seeds, evals)
    if any(found[kind] for kind in KINDS):
        counts = ", ".join(f"{found[kind]} by {kind}" for kind in KINDS if found[kind])
        raise GateError(
            f"{source.key}/eval_set",
            f"evaluation records stand in the seed set too: {counts}.",
            "Mend the data, or say `leaks: drop` in the source's YAML file to leave those seeds out.",
        )


def leaking_rows(seeds: pa.Table, evals: pa.Table) -> dict[int, str]:
    """Rows of the seed table that an evaluation row matches, each with the kind of its strongest match."""
    found: dict[int, str] = {}
    for task in sorted(set(seeds["task"].to_pylist())):
        where = [row for row, name in enumerate(seeds["task"].to_pylist()) if name == task]
        own, items = seeds.take(where), _of_task(evals, task)
        given, held = texts_of(own), texts_of(items)
        texts, others = given.whole, held.whole
        exact, folded = set(others), {fold(text) for text in others}
        subjects = {value for value in items["subject_key"].to_pylist() if value is not None}
        near = {int(left) for left in near_pairs(texts, others, 0.8, parts=parts(given, held)).left}
        for at, (text, subject) in enumerate(zip(texts, own["subject_key"].to_pylist(), strict=True)):
            if text in exact:
                found[where[at]] = "record"
            elif fold(text) in folded:
                found[where[at]] = "folded"
            elif subject in subjects:
                found[where[at]] = "subject"
            elif at in near:
                found[where[at]] = "near"
    return found


def _of_task(table: pa.Table, task: str) -> pa.Table:
    return table.filter(pc.field("task") == task)
