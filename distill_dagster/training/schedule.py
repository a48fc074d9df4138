"""Learning rate by step."""

from __future__ import annotations

import math


def rate(schedule: str, step: int, steps: int, warmup: int) -> float:
    """Share of the highest rate at step 0 … steps − 1.

    It rises linearly over the warm-up, then falls to 0 (`cosine`, Loshchilov & Hutter 2017; `linear`) or stays
    (`constant`). A warm-up longer than the run is cut to a tenth of it, so that short pilots reach the full rate.
    """
    if warmup >= steps:
        warmup = steps // 10
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
