"""Attention maps of chosen layers, made like the teacher's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distill_dagster.errors import TrainingError
from distill_dagster.training.features import (
    LayerParams,
    LayerTerm,
    Learned,
    kl,
    layers_of,
    log_maps,
    seen_by_both,
    weights_of,
)
from distill_dagster.training.objectives.base import Positions

if TYPE_CHECKING:
    import torch

    from distill_dagster.training.layers import Heads, Shape, Watch


class Objective(LayerTerm):
    """Mean over the mapped layers and heads of the weighted mean over positions i of a distance between the rows
    A_i (T) of student and teacher, over the positions that i may see.

    `kl` is KL(teacher ‖ student) of the maps, in nats (MobileBERT, Sun et al. 2020). `mse` is the mean squared
    difference of the scores before the softmax (TinyBERT, Jiao et al. 2020, who found them better than the maps).
    Heads are matched one to one, or averaged first: maps for `kl`, scores for `mse`.
    """

    class Params(LayerParams):
        """What a recipe may say."""

        kind: Literal["kl", "mse"] = Field("kl", description="kl: of the maps; mse: of the scores before the softmax")
        heads: Literal["match", "mean"] = Field("match", description="match: one to one; mean: averaged first")

    params: Params

    def bind(self, student: Shape, teacher: Shape, learned: Learned) -> tuple[Watch, Watch]:
        """Layers to keep of student and teacher.

        Raises:
            TrainingError: Maps that cannot be read, or heads to match of which one model has more.
        """
        watched = self.watch_heads(student, teacher, "attention", maps=True)
        for mine, theirs in self.map.items():
            counts = student.heads[mine][0], teacher.heads[theirs][0]
            if self.params.heads == "match" and counts[0] != counts[1]:
                raise TrainingError(
                    "training.objective.attention.heads",
                    f"layer {mine} of the student has {counts[0]} heads and layer {theirs} of the teacher {counts[1]}.",
                    "Give `heads: mean`, or use the objective `relation`.",
                )
        return watched

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value."""
        import torch

        mine, theirs = layers_of(positions)
        weights = weights_of(positions, self.params.positions)
        values = [
            (self._apart(mine.heads[number], theirs.heads[other]).mean(1) * weights).sum()
            for number, other in self.map.items()
        ]
        return torch.stack(values).mean()

    def _apart(self, student: Heads, teacher: Heads) -> torch.Tensor:
        """Distance of each position's row, B × heads × T."""
        seen = seen_by_both(student, teacher)
        scores, targets = student.scores, teacher.scores
        if self.params.kind == "mse":
            if self.params.heads == "mean":
                scores, targets = scores.mean(1, keepdim=True), targets.mean(1, keepdim=True)
            return ((scores - targets).square() * seen).sum(-1) / seen.sum(-1).clamp_min(1)
        log_q, log_p = log_maps(scores, seen), log_maps(targets, seen)
        if self.params.heads == "mean":
            log_q, log_p = (maps.logsumexp(1, keepdim=True) - math.log(maps.shape[1]) for maps in (log_q, log_p))
        return kl(log_p, log_q)
