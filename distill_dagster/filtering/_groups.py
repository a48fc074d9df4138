"""Which candidates a duplicate rule may compare."""

from __future__ import annotations

from typing import Literal

import numpy as np

from distill_dagster.filtering._text import fold
from distill_dagster.filtering.base import Batch

#: `input`: one record an input survives. `answer`: the same input with another answer is another record. `sample`:
#: so is the same input with another sample number.
Per = Literal["input", "answer", "sample"]


def groups(candidates: Batch, per: Per) -> np.ndarray:
    """A number for each candidate; only candidates of one task and one number are compared."""
    parts = [candidates.column("task")]
    if per == "answer":
        parts.append([fold(answer or "") for answer in candidates.column("answer")])
    elif per == "sample":
        parts.append(candidates.column("sample"))
    numbers: dict[tuple, int] = {}
    keys = zip(*parts, strict=True)
    return np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), dtype=np.int64, count=len(candidates))
