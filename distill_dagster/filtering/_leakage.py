"""Leakage between a seed set and an evaluation set: by text, by subject, and by near match.

The text of a record is its input with context and choices, where it has them: one question about two passages is two
questions, and so are two questions about one. A near match therefore is one of the input and of what stands beside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from distill_dagster.filtering._minhash import Numbers, Sides, near_pairs
from distill_dagster.filtering._text import fold
from distill_dagster.records.messages import joined, rest_of, text_of

#: Samples of each kind.
SAMPLES = 5


def leaks(
    seed_table: pa.Table, eval_table: pa.Table, threshold: float = 0.8, numbers: Numbers = "distinct"
) -> dict[str, Any]:
    """Count evaluation rows that the seed set gives away.

    Args:
        seed_table: SEED rows that something is fitted on.
        eval_table: SEED rows that something is examined on.
        threshold: Jaccard similarity of a near match.
        numbers: Whether texts with other figures can be near (see `near_pairs`).

    Returns:
        `record`: evaluation rows whose text stands in the seeds byte by byte. `folded`: with case and white space
        folded (`record` included). `near`: with a near match (`folded` included). `subject`: rows whose subject has
        a seed. `samples`: up to five of each kind, `{kind, eval_record, seed_record, similarity}`, by record id,
        without text.
    """
    own, held = texts_of(seed_table), texts_of(eval_table)
    seeds, items = own.whole, held.whole
    seed_ids = seed_table.column("record_id").to_pylist()
    item_ids = eval_table.column("record_id").to_pylist()
    subjects = {
        subject: row for row, subject in enumerate(seed_table.column("subject_key").to_pylist()) if subject is not None
    }
    raw = {text: row for row, text in enumerate(seeds)}
    folded = {fold(text): row for row, text in enumerate(seeds)}
    hits: dict[str, list[tuple[int, int, float]]] = {"record": [], "folded": [], "near": [], "subject": []}
    for row, (text, subject) in enumerate(zip(items, eval_table.column("subject_key").to_pylist(), strict=True)):
        key = fold(text)
        if text in raw:
            hits["record"].append((row, raw[text], 1.0))
        if key in folded:
            hits["folded"].append((row, folded[key], 1.0))
        if subject in subjects:
            hits["subject"].append((row, subjects[subject], 1.0))
    pairs = near_pairs(items, seeds, threshold, numbers=numbers, parts=parts(held, own))
    best: dict[int, tuple[int, int, float]] = {row: (row, seed, 1.0) for row, seed, _ in hits["folded"]}
    for at in np.argsort(-pairs.similarity, kind="stable"):
        row = int(pairs.left[at])
        best.setdefault(row, (row, int(pairs.right[at]), float(pairs.similarity[at])))
    hits["near"] = [best[row] for row in sorted(best)]
    samples = [
        {"kind": kind, "eval_record": item_ids[row], "seed_record": seed_ids[seed], "similarity": round(score, 4)}
        for kind, found in hits.items()
        for row, seed, score in found[:SAMPLES]
    ]
    return {**{kind: len(found) for kind, found in hits.items()}, "samples": samples}


class Texts(NamedTuple):
    """What of SEED rows is compared: the whole text of each, its input, and what stands beside it."""

    whole: list[str]
    inputs: list[str]
    rests: list[str]


def texts_of(table: pa.Table) -> Texts:
    """The texts of SEED rows."""
    rows = table.select(["messages", "context", "choices"]).to_pylist()
    inputs, rests = [text_of(row["messages"]) for row in rows], [rest_of(row) for row in rows]
    return Texts([joined(text, rest) for text, rest in zip(inputs, rests, strict=True)], inputs, rests)


def parts(left: Texts, right: Texts) -> list[Sides]:
    """What has to be near beside the whole texts; nothing where there is no more to them than the input."""
    return [(left.inputs, right.inputs), (left.rests, right.rests)] if any(left.rests) or any(right.rests) else []
