"""Simple preference optimization: the better answer gains on the worse one, token for token and without a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from distill_dagster.config.strict import Strict
from distill_dagster.training.data import Example
from distill_dagster.training.objectives.base import Positions

if TYPE_CHECKING:
    import torch


class Objective:
    """Mean over the pairs of a batch of −log σ(β (log π(chosen)/|chosen| − log π(rejected)/|rejected|) − γ), in nats a
    pair (Meng et al. 2024). Lengths are in tokens, the end token among them."""

    feed = "pairs"
    measures = ("simpo_margin", "simpo_accuracy", "simpo_chosen_log_prob", "simpo_rejected_log_prob")

    class Params(Strict):
        """What a recipe may say."""

        beta: float = Field(2.0, gt=0, le=100, description="Scales log-probabilities a token into rewards")
        gamma: float = Field(1.0, ge=0, le=100, description="The margin by which a reward has to be higher")

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()  # pyright: ignore[reportCallIssue]

    def units(self, examples: Sequence[Example]) -> int:
        """Pairs in a batch: what the mean is over."""
        from distill_dagster.training.pairs import count

        return count(examples)

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value.

        Raises:
            TrainingError: The batch holds no whole pairs.
        """
        from torch.nn.functional import logsigmoid

        from distill_dagster.training.pairs import compared

        params, said = self.params, compared(positions, "`simpo`")
        margin = params.beta * (said.chosen / said.chosen_tokens - said.rejected / said.rejected_tokens)
        seen = margin.detach()
        positions.measures |= {
            "simpo_margin": seen.mean(),
            "simpo_accuracy": (seen > 0).float().mean(),
            "simpo_chosen_log_prob": said.chosen.detach().mean(),
            "simpo_rejected_log_prob": said.rejected.detach().mean(),
        }
        return -logsigmoid(margin - params.gamma).mean()
