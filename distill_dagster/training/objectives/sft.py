"""Supervised fine-tuning: cross-entropy of the tokens of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_dagster.training.objectives.base import Positions

if TYPE_CHECKING:
    import torch


class Objective:
    """Weighted mean of −log p(token), in nats a token. With teacher text this is sequence-level distillation
    (Kim & Rush 2016)."""

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value."""
        from torch.nn.functional import cross_entropy

        losses = cross_entropy(positions.logits, positions.labels, reduction="none")
        return (losses * positions.weights).sum() / positions.total
