"""The losses as their papers write them: whole distributions, float64, autograd. What the fast ones must equal."""

from __future__ import annotations

import math
from typing import Any


def buckets(log_p: Any, log_q: Any, ids: Any) -> tuple[Any, Any]:
    """Log-probabilities of some tokens and of all others together, R × (K + 1)."""
    import torch

    inside = torch.zeros_like(log_p, dtype=torch.bool).scatter_(1, ids, True)

    def one(values: Any) -> Any:
        rest = torch.logsumexp(values.masked_fill(inside, -math.inf), 1, keepdim=True)
        return torch.cat((values.gather(1, ids), rest), 1)

    return one(log_p), one(log_q)


def kl(log_a: Any, log_b: Any) -> Any:
    """KL(A‖B) of each row."""
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def mixed(share: float, log_a: Any, log_b: Any) -> Any:
    """Log of share·A + (1 − share)·B."""
    return (share * log_a.exp() + (1 - share) * log_b.exp()).log()


def divergence(kind: str, log_p: Any, log_q: Any, beta: float, alpha: float) -> Any:
    """A divergence of each row; P is the teacher."""
    if kind == "forward":
        return kl(log_p, log_q)
    if kind == "reverse":
        return kl(log_q, log_p)
    if kind == "jsd":
        middle = mixed(beta, log_p, log_q)
        return beta * kl(log_p, middle) + (1 - beta) * kl(log_q, middle)
    if kind == "skew_forward":
        return kl(log_p, mixed(alpha, log_p, log_q))
    return kl(log_q, mixed(alpha, log_q, log_p))


def loss(
    student: Any,
    teacher: Any,
    labels: Any,
    weights: Any,
    total: Any,
    *,
    kind: str,
    temperature: float = 1.0,
    hard: float = 0.0,
    beta: float = 0.5,
    alpha: float = 0.1,
    ids: Any = None,
) -> Any:
    """(1 − hard) · T² · D + hard · cross-entropy, from logits R × V in float64; `ids` keeps only some tokens apart."""
    import torch

    log_p, log_q = ((logits / temperature).log_softmax(-1) for logits in (teacher, student))
    if ids is not None:
        log_p, log_q = buckets(log_p, log_q, ids)
    soft = divergence(kind, log_p, log_q, beta, alpha) * temperature**2
    cross = torch.nn.functional.cross_entropy(student, labels, reduction="none")
    return (((1 - hard) * soft + hard * cross) * weights).sum() / total
