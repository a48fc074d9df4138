"""Reinforcement with a verifier: answers that are better than others to the same prompt become likelier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distill_dagster.models.placing import placed
from distill_dagster.training.objectives.base import Positions
from distill_dagster.training.own_samples import Judging, Plan, Rollout, Sampling

if TYPE_CHECKING:
    import torch


class Objective:
    """Group relative policy optimisation (GRPO, Shao et al. 2024), with the domain's verifier as the reward.

    Weighted mean over the answers' tokens of −min(r·A, clip(r, 1 − clip_low, 1 + clip_high)·A) + kl·K3, in which
    r = π/π_old is of the policy as it samples (logits divided by the sampling temperature), A is the sample's reward
    against its group's mean, over its standard deviation, and K3 = π_ref/π − ln(π_ref/π) − 1 (Schulman 2020).
    `std: false` is Dr. GRPO's advantage (Liu et al. 2025); `clip_high` above `clip_low` and `mean: tokens` are DAPO's
    (Yu et al. 2025).
    On records (validation) it is the cross-entropy.
    """

    feed = "rollouts"

    class Params(Sampling):
        """What a recipe may say."""

        group: int = Field(8, ge=2, le=1024, description="Samples a prompt")
        clip_low: float = Field(0.2, gt=0, lt=1, description="How far below 1 a ratio may push")
        clip_high: float = Field(0.2, gt=0, description="How far above 1 a ratio may push")
        kl: float = Field(0.0, ge=0, description="Weight of the divergence from the student before training")
        std: bool = Field(True, description="Divide by the standard deviation of a group's rewards")
        mean: Literal["tokens", "sequences"] = Field(
            "tokens", description="tokens: all weigh the same; sequences: all samples do"
        )
        equal_groups: Literal["drop", "keep"] = Field(
            "drop", description="Groups of equal rewards teach nothing; keep: they count in the mean"
        )
        well_formed: float = Field(0.0, ge=0, description="Reward of an answer of the task's form, right or wrong")
        cut: float = Field(0.0, ge=0, description="Taken from the reward of an answer that its room cut off")

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()  # pyright: ignore[reportCallIssue]
        one = self.params
        sampling = Sampling(**{name: getattr(one, name) for name in Sampling.model_fields})
        judging = Judging(
            one.std,
            one.mean == "sequences",
            one.equal_groups == "keep" or one.kl > 0,
            one.well_formed,
            one.cut,
            one.kl > 0,
        )
        self.plan = Plan(sampling, one.group, judging=judging)
        self.measures = ("entropy", "clipped", "kl_sampled", *(["kl"] if one.kl else []))

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value."""
        import torch
        from torch.nn.functional import cross_entropy

        if not isinstance(positions.examples[0], Rollout):
            losses = cross_entropy(positions.logits, positions.labels, reduction="none")
            return (losses * positions.weights).sum() / positions.total
        logits = positions.logits / self.params.sampling_temperature
        every = logits.log_softmax(-1)
        said = every.gather(1, positions.labels[:, None])[:, 0]
        old = _by_token(positions, "old")
        advantage = said.new_tensor([one.advantage for one in positions.examples])[positions.rows]  # pyright: ignore
        ratio = (said - old).exp()
        low, high = 1 - self.params.clip_low, 1 + self.params.clip_high
        free, held = ratio * advantage, ratio.clamp(low, high) * advantage
        losses = -torch.minimum(free, held)
        with torch.no_grad():
            positions.measures |= {
                "entropy": _mean(-(every.exp() * every).sum(-1), positions),
                "clipped": _mean((held < free).float(), positions),
                "kl_sampled": _mean(_k3(said, old), positions),
            }
        if self.params.kl:
            apart = _k3(said, _by_token(positions, "reference"))
            positions.measures["kl"] = _mean(apart.detach(), positions)
            losses = losses + self.params.kl * apart
        return (losses * positions.weights).sum() / positions.total


def _k3(said: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """An unbiased estimate of KL(π‖other) from a sample of π, never negative."""
    return (other - said).exp() - (other - said) - 1


def _mean(values: torch.Tensor, positions: Positions) -> torch.Tensor:
    return (values * positions.weights).sum() / positions.weights.sum()


def _by_token(positions: Positions, name: str) -> torch.Tensor:
    """A number of each token of the batch's samples, in the order of its positions."""
    import torch

    # A sample without a position has no token of its own either; asking the rows for it would wait for a GPU.
    values = [value for one in positions.examples if any(one.weights[1:]) for value in getattr(one, name)]
    return placed(torch.tensor(values, dtype=torch.float32), positions.hidden.device)
