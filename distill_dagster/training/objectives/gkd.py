"""On-policy distillation: the teacher's opinion of what the student itself says (Agarwal et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from distill_dagster.training.losses.kinds import Kind
from distill_dagster.training.objectives import divergence
from distill_dagster.training.objectives.base import Need, Positions
from distill_dagster.training.own_samples import Plan, Rollout, Sampling

if TYPE_CHECKING:
    import torch


class Objective:
    """`divergence` with a live teacher, on batches of the student's samples and of records.

    A batch is of samples with probability `on_policy`, and of records otherwise; with 0 it is `divergence` itself.
    """

    feed = "rollouts"

    class Params(Sampling):
        """What a recipe may say."""

        on_policy: float = Field(0.5, ge=0, le=1, description="Share of batches that are the student's own samples")
        kind: Kind = Field("reverse", description="Divergence on samples; P is the teacher, Q the student")
        data_kind: Kind | None = Field(None, description="Divergence on records; left out: the same")
        temperature: float = Field(1.0, gt=0, le=100, description="Divides both models' logits; T² keeps the gradient")
        beta: float = Field(0.5, gt=0, lt=1, description="jsd: M = βP + (1 − β)Q")
        alpha: float = Field(0.1, ge=0, lt=1, description="skew: how much of the first goes into the second")
        k: int = Field(0, ge=0, le=1024, description="The teacher's likeliest tokens kept apart; 0: all")

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()  # pyright: ignore[reportCallIssue]
        self.need = Need("live", self.params.k, self.params.temperature)
        sampling = Sampling(**{name: getattr(self.params, name) for name in Sampling.model_fields})
        self.plan = Plan(sampling, share=self.params.on_policy)
        self.own = self._divergence(self.params.kind)
        self.data = self._divergence(self.params.data_kind or self.params.kind)

    def _divergence(self, kind: Kind) -> divergence.Objective:
        own = {name: getattr(self.params, name) for name in ("temperature", "beta", "alpha", "k")}
        return divergence.Objective(divergence.Objective.Params(kind=kind, signals="live", hard=0.0, **own))

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value; a batch is all samples or all records.

        Raises:
            TrainingError: No teacher has said anything about these positions.
        """
        return (self.own if isinstance(positions.examples[0], Rollout) else self.data)(positions)
