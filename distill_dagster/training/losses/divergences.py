"""Divergences between a teacher's and a student's distribution over buckets of tokens.

A bucket is one token, or the rest of the vocabulary. A divergence needs two numbers a bucket: its own contribution,
and ψ = Q · ∂D/∂Q, which stays finite where Q goes to 0. The gradient of D with respect to the log-probability of a
bucket is then ψ − Q · Σψ, and inside a bucket it is shared out in proportion to the student's own probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch

from distill_dagster.training.losses.kinds import Kind

#: A log-probability is taken to be no lower: reverse divergences are infinite where a teacher gives nothing.
FLOOR = -60.0
#: The student's log-probability of an empty bucket; its exponential is 0 in fp32.
EMPTY = -200.0


@dataclass(frozen=True)
class Divergence:
    """Which divergence, with what it takes.

    Attributes:
        kind: forward is KL(P‖Q), P being the teacher; reverse is KL(Q‖P) (Gu et al. 2024, MiniLLM);
            jsd is β KL(P‖M) + (1 − β) KL(Q‖M) with M = βP + (1 − β)Q (Agarwal et al. 2024, GKD);
            skew_forward is KL(P‖αP + (1 − α)Q), skew_reverse KL(Q‖αQ + (1 − α)P) (Ko et al. 2024, DistiLLM).
        beta: β of jsd, between 0 and 1.
        alpha: α of the skew divergences, from 0 (no skew) to below 1.
    """

    kind: Kind = "forward"
    beta: float = 0.5
    alpha: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown divergence {self.kind!r}; known: {', '.join(get_args(Kind))}")

    def __call__(self, log_p: torch.Tensor, log_q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Value in nats, R, and gradient with respect to the buckets' log-probabilities, R × B.

        Args:
            log_p: The teacher's log-probabilities of the buckets, R × B.
            log_q: The student's.
        """
        log_p, log_q = log_p.clamp(min=FLOOR), log_q.clamp(min=EMPTY)
        p, q = log_p.exp(), log_q.exp()
        value, psi = self._terms(p, log_p, q, log_q)
        return value.sum(-1), psi - q * psi.sum(-1, keepdim=True)

    def _terms(
        self, p: torch.Tensor, log_p: torch.Tensor, q: torch.Tensor, log_q: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Each KL(A‖B) is summed as a (log a − log b) − a + b: an error in a normaliser then counts in second order.
        if self.kind == "forward":
            return p * (log_p - log_q) - p + q, -p
        if self.kind == "reverse":
            ratio = log_q - log_p
            return q * ratio - q + p, q * ratio
        if self.kind == "jsd":
            log_m, m = _mixed(log_p, log_q, self.beta)
            ratio = log_q - log_m
            value = self.beta * (p * (log_p - log_m) - p + m) + (1 - self.beta) * (q * ratio - q + m)
            return value, (1 - self.beta) * q * ratio
        if self.kind == "skew_forward":
            log_m, m = _mixed(log_p, log_q, self.alpha)
            return p * (log_p - log_m) - p + m, -(1 - self.alpha) * (log_p + log_q - log_m).exp()
        log_m, m = _mixed(log_q, log_p, self.alpha)
        ratio = log_q - log_m
        return q * ratio - q + m, q * (ratio - self.alpha * ratio.exp())


def _mixed(log_a: torch.Tensor, log_b: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logarithm of share·a + (1 − share)·b, and the mixture itself; share lies in [0, 1)."""
    if share == 0:
        return log_b, log_b.exp()
    mixed = share * log_a.exp() + (1 - share) * log_b.exp()
    # Far below the floor both are 0, and so is what this logarithm is multiplied with.
    return mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log(), mixed
