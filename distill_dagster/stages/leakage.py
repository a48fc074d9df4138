"""Leakage between seeds and evaluation: the blocking check, and dropping leaking seeds where a source says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill_dagster.errors import GateError
from distill_dagster.filtering._leakage import leaks, parts, texts_of
from distill_dagster.filtering._minhash import near_pairs
from distill_dagster.filtering._text import fold
from distill_dagster.stages.context import SourceContext
from distill_dagster.storage.store import Store, Version

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
        GateError: Names how many rows leak, by kind, and the strongest pair of records of each.
    """
    found = measure(seeds, evals)
    if any(found[kind] for kind in KINDS):
        counts = ", ".join(f"{found[kind]} by {kind}" for kind in KINDS if found[kind])
        raise GateError(
            f"{source.key}/eval_set",
            f"evaluation records stand in the seed set too: {counts}; such as {_examples(seeds, evals, found)}.",
            "Mend the data, or say `leaks: drop` in the source's YAML file to leave those seeds out.",
        )


def before_asking(source: SourceContext, store: Store, seeds: Version, run: str) -> None:
    """Refuse leaking seeds before a teacher is paid for them, where the evaluation set of the same files is known.

    What reads both refuses as well (`require_none`). This comes earlier and makes no version another one: a teacher's
    answers do not depend on the evaluation set, so it is no parent of theirs.

    Raises:
        GateError: As `require_none` has it.
    """
    key = (source.key, "eval_set")
    head = store.head(key)
    if head is None or source.config.leaks == "drop" or not store.has(key, head["version"], head["run"]):
        return
    evals = store.open(key, head["version"])
    read, known = evals.run(head["run"])["outside"].get("files", {}), seeds.run(run)["outside"].get("files", {})
    if read.items() <= known.items():  # an evaluation set of other files is about to be made anew
        require_none(source, seeds.table("seed"), evals.table("seed"))


def _examples(seeds: pa.Table, evals: pa.Table, found: Mapping[str, Any]) -> str:
    """One pair of records of each kind that was found, by file and row where they have one."""
    places = {row["record_id"]: _place(row) for table in (seeds, evals) for row in _origins(table)}
    said = {}
    for sample in found["samples"]:
        seed, item = (places[sample[name]] for name in ("seed_record", "eval_record"))
        same = f" (similarity {sample['similarity']:.2f})" if sample["kind"] == "near" else ""
        said.setdefault(sample["kind"], f"{item} and {seed}{same}")
    return "; ".join(f"by {kind} {said[kind]}" for kind in KINDS if kind in said)


def _origins(table: pa.Table) -> list[dict[str, Any]]:
    return table.select(["record_id", "source_id", "source_row"]).to_pylist()


def _place(row: Mapping[str, Any]) -> str:
    if row["source_row"] is None:
        return row["record_id"]
    return f"row {row['source_row']} of {row['source_id']}"


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
