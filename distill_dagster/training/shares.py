"""What each batch of an optimizer step weighs in it.

A term is a mean over something: over loss weights for most, over what an objective counts in `units` for others. The
mean of the whole step is the sum of its batches' means, each times the batch's share, so eight batches of one step
give the numbers of one batch eight times as large. A mean of means would weigh short batches too much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distill_dagster.training.data import Example


def units(objective: Any, examples: Sequence[Example]) -> float:
    """What the objective's mean over some examples is divided by: its own `units(examples)`, or the loss weights."""
    count = getattr(objective, "units", None)
    if count is not None:
        return float(count(examples))
    # A pair's rejected answer carries no loss but that of terms on pairs (`forward.learned`).
    kept = (example for example in examples if example.side is None or example.side.chosen)
    # A first token is predicted by nothing; but a classifier's record is one position, also one of a single token.
    return math.fsum(
        weight for example in kept for weight in (example.weights[1:] if example.label is None else example.weights)
    )


def shares(terms: Mapping[str, Any], batches: Sequence[Sequence[Example]]) -> list[dict[str, float]]:
    """Of each batch the share of every term, given as name and objective; a step of one batch has shares of 1."""
    if len(batches) == 1:
        return [dict.fromkeys(terms, 1.0)]
    found: list[dict[str, float]] = [{} for _ in batches]
    for name, objective in terms.items():
        counts = [units(objective, batch) for batch in batches]
        whole = math.fsum(counts)
        for share, count in zip(found, counts, strict=True):
            share[name] = count / whole if whole else 0.0
    return found
