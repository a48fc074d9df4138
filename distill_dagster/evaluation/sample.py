"""One task's arms on the same bootstrap draws, so that every difference and ratio is paired."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distill_dagster.evaluation.intervals import (
    Bootstrap,
    Floats,
    Interval,
    of_difference,
    of_mean,
    of_ratio,
    replicates,
)


def plain(estimate: Interval | None) -> dict[str, float | None] | None:
    """An interval as JSON values; infinite bounds are null."""
    if estimate is None:
        return None
    low, high = (rounded(bound) if np.isfinite(bound) else None for bound in (estimate.low, estimate.high))
    return {"value": rounded(estimate.value), "low": low, "high": high}


def rounded(value: float) -> float:
    """Six digits, and no negative zero."""
    return round(float(value), 6) + 0.0


class Sample:
    """Replicates of every measured arm of one task.

    Args:
        scores: Arm to (seeds, items); arms with one seed are broadcast.
        clusters: Subject number of each item, below `units`.
        units: Subjects that are drawn from.
        options: Resamples, level and the seed of the draws.
        weights: (resamples, seeds), shared by all tasks: one training run makes a student for all of them.
    """

    def __init__(
        self,
        scores: dict[str, Floats],
        clusters: NDArray[np.int64],
        units: int,
        options: Bootstrap,
        weights: Floats,
    ) -> None:
        self.names = list(scores)
        self.level = options.level
        self.units = len(np.unique(clusters))
        stacked = np.stack(np.broadcast_arrays(*scores.values())) if scores else np.zeros((0, 1, len(clusters)))
        if stacked.shape[1] != weights.shape[1]:
            stacked = np.broadcast_to(stacked, (stacked.shape[0], weights.shape[1], stacked.shape[2]))
        self.scores = dict(zip(self.names, stacked, strict=True))
        drawn = replicates(stacked, clusters, units, options, weights) if scores else np.zeros((options.resamples, 0))
        self.values = {name: drawn[:, index] for index, name in enumerate(self.names)}

    def mean(self, arm: str) -> Interval:
        """One arm's mean."""
        return of_mean(self.scores[arm], self.values[arm], self.units, self.level)

    def difference(self, a: str, b: str) -> Interval:
        """Mean of arm `a` less mean of arm `b`."""
        value = float(self.scores[a].mean() - self.scores[b].mean())
        return of_difference(value, self.values[a] - self.values[b], self.units, self.level)

    def gap(self, control: str) -> Interval | None:
        """(s - k) / (t - k) against one control; None where t - k is not wholly above 0."""
        s, t, k = (float(self.scores[arm].mean()) for arm in ("student", "teacher", control))
        values = self.values
        tops, bottoms = values["student"] - values[control], values["teacher"] - values[control]
        return of_ratio(s - k, t - k, tops, bottoms, self.units, self.level)
