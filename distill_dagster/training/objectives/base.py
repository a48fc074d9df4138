"""What an objective is: a number to make small, from the positions of a batch that carry a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


@dataclass
class Positions:
    """The R positions of a batch that carry a loss; prompts and padding of weight 0 are not among them.

    Attributes:
        hidden: Last hidden states at the positions *before* each label, R × H.
        labels: The token to predict, R.
        weights: Its loss weight, R, none of them 0.
        rows: The example of the batch each position belongs to, R.
        record_ids: Record of each example of the batch.
        project: From hidden states to logits; objectives that need only some columns may do without.
        signals: What a teacher said about these positions, by name (top-k ids, log-probabilities, …).
    """

    hidden: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    rows: torch.Tensor
    record_ids: list[str]
    project: Callable[[torch.Tensor], torch.Tensor]
    signals: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def logits(self) -> torch.Tensor:
        """Student logits, R × V, fp32; computed once for all objectives that ask."""
        return self.project(self.hidden).float()

    @cached_property
    def total(self) -> torch.Tensor:
        """Sum of the weights: what weighted means are divided by."""
        return self.weights.sum()


class Objective(Protocol):
    """One term of a training loss. A term of weight w adds w times its value."""

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value in nats a token, a scalar with a gradient."""
        ...
