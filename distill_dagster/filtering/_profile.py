"""Lengths and labels before and after filtering: counts, no record text."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from distill_dagster.domains.base import Task
from distill_dagster.filtering._text import words
from distill_dagster.records.messages import text_of

#: Bars of a length distribution.
BINS = 24
#: What an answer that is none of its task's labels counts as.
OTHER = "(no label)"


def profile(candidates: pa.Table, kept: Collection[int], tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Distributions of the answered candidates, and of those that were kept.

    Args:
        candidates: CANDIDATE rows.
        kept: `candidate_no` of the kept ones.
        tasks: Tasks by name; those with labels have a label distribution.

    Returns:
        `lengths`: for `prompt` and `answer`, in words, `{edges, before, after, median_before, median_after}`; empty
        without answered candidates. `labels`: task → label → `[before, after]`.
    """
    lengths: dict[str, list[int]] = {"prompt": [], "answer": []}
    alive: list[bool] = []
    labels: dict[str, dict[str, list[int]]] = {
        name: {label: [0, 0] for label in task.labels} for name, task in tasks.items() if task.kind == "label"
    }
    columns = ("candidate_no", "task", "status", "answer", "messages")
    for batch in candidates.select(columns).to_batches(max_chunksize=8192):
        for row in batch.to_pylist():
            if row["status"] != "ok":
                continue
            stays = row["candidate_no"] in kept
            alive.append(stays)
            lengths["prompt"].append(len(words(text_of(row["messages"] or (), "user"))))
            lengths["answer"].append(len(words(row["answer"] or "")))
            if row["task"] in labels:
                found = labels[row["task"]]
                known = row["answer"] if not found or row["answer"] in found else OTHER
                counts = found.setdefault(known or OTHER, [0, 0])
                counts[0] += 1
                counts[1] += stays
    mask = np.array(alive, dtype=bool)
    return {
        "lengths": {name: _distribution(np.array(found), mask) for name, found in lengths.items()} if alive else {},
        "labels": {task: found for task, found in labels.items() if any(before for before, _ in found.values())},
    }


def _distribution(sizes: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
    """Bins are equally wide up to the 99th percentile; the last one takes what is longer."""
    low, high = int(sizes.min()), int(np.ceil(np.quantile(sizes, 0.99)))
    width = max(1, int(np.ceil((high - low + 1) / BINS)))
    count = max(1, int(np.ceil((high - low + 1) / width)))
    edges = low + width * np.arange(count + 1)
    place = np.minimum((sizes - low) // width, count - 1)
    return {
        "edges": edges.tolist(),
        "before": np.bincount(place, minlength=count).tolist(),
        "after": np.bincount(place[kept], minlength=count).tolist(),
        "median_before": float(np.median(sizes)),
        "median_after": float(np.median(sizes[kept])) if kept.any() else 0.0,
    }
