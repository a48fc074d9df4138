"""Direct preference optimization: the better answer gains on the worse one, against the student before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from distill_dagster.config.strict import Strict
from distill_dagster.training.data import Example
from distill_dagster.training.objectives.base import Positions

if TYPE_CHECKING:
    import torch


class Objective:
    """Mean over the pairs of a batch, in nats a pair.

    With h the log-ratio log π(chosen)/π₀(chosen) − log π(rejected)/π₀(rejected), π₀ being the student before training:
    `sigmoid` is −log σ(βh) (Rafailov et al. 2023), where `label_smoothing` ε mixes in the pair the other way round
    (Mitchell 2023); `ipo` is (h − 1/2β)² on log-probabilities a token (Azar et al. 2024).
    """

    feed = "pairs"
    measures = ("dpo_margin", "dpo_accuracy", "dpo_chosen_log_prob", "dpo_rejected_log_prob")
    reference = True

    class Params(Strict):
        """What a recipe may say."""

        beta: float = Field(0.1, gt=0, le=100, description="How closely the student stays to its start; more is closer")
        label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="sigmoid: how often a preference may be wrong")
        loss: Literal["sigmoid", "ipo"] = Field("sigmoid", description="sigmoid: DPO; ipo: bounded, by Azar et al.")

        @model_validator(mode="after")
        def _smoothing_is_of_sigmoid(self):
            if self.loss == "ipo" and self.label_smoothing:
                raise ValueError("`label_smoothing` belongs to `loss: sigmoid`")
            return self

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()  # pyright: ignore[reportCallIssue]

    def units(self, examples: Sequence[Example]) -> int:
        """Pairs in a batch: what the mean is over."""
        from distill_dagster.training.pairs import count

        return count(examples)

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value.

        Raises:
            TrainingError: The batch holds no whole pairs, or nobody computed the start's log-probabilities.
        """
        from torch.nn.functional import logsigmoid

        from distill_dagster.training.pairs import compared, reference_of

        params, said = self.params, compared(positions, "`dpo`")
        start_chosen, start_rejected = reference_of(positions, "`dpo`")
        chosen, rejected = said.chosen - start_chosen, said.rejected - start_rejected
        if params.loss == "ipo":
            gap = chosen / said.chosen_tokens - rejected / said.rejected_tokens
            losses = (gap - 1 / (2 * params.beta)) ** 2
        else:
            gap = params.beta * (chosen - rejected)
            losses = -(1 - params.label_smoothing) * logsigmoid(gap) - params.label_smoothing * logsigmoid(-gap)
        margin = params.beta * (chosen - rejected).detach()
        positions.measures |= {
            "dpo_margin": margin.mean(),
            "dpo_accuracy": (margin > 0).float().mean(),
            "dpo_chosen_log_prob": said.chosen.detach().mean(),
            "dpo_rejected_log_prob": said.rejected.detach().mean(),
        }
        return losses.mean()
