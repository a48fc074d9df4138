"""Divergence from a teacher with another tokenizer, at the bytes where both have a token boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from distill_dagster.config.strict import Strict
from distill_dagster.errors import TrainingError
from distill_dagster.training.losses.kinds import Kind
from distill_dagster.training.objectives.base import Need, Positions

if TYPE_CHECKING:
    import torch


class Objective:
    """Weighted sum of T² · D(teacher, student) over spans of bytes that both tokenizers cut out, a token.

    A span of one token each is compared over the tokens that both vocabularies have, all others being one bucket (where
    one of the two has no others: over those of both alone); with one tokenizer this is the objective `divergence`. A
    span of more tokens is compared by what both give its bytes, against anything else (approximate likelihood matching,
    Minixhofer et al. 2025, arXiv:2503.20083). Relatives that compare other things: ULD (Boizard et al. 2024), sorted
    probabilities; DSKD (Zhang et al. 2024), projected states. What lies in no
    common span counts as 0.
    """

    class Params(Strict):
        """What a recipe may say."""

        kind: Kind = Field("forward", description="Which divergence; P is the teacher, Q the student")
        temperature: float = Field(1.0, gt=0, le=100, description="Divides both models' logits; T² keeps the gradient")
        beta: float = Field(0.5, gt=0, lt=1, description="jsd: M = βP + (1 − β)Q")
        alpha: float = Field(0.1, ge=0, lt=1, description="skew: how much of the first goes into the second")
        k: int = Field(16, ge=0, le=1024, description="Shared tokens kept a position, the rest as one; 0: all")
        spans: Literal["all", "single"] = Field("all", description="single: only spans of one token each")

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()  # pyright: ignore[reportCallIssue]
        self.need = Need("aligned", self.params.k, self.params.temperature)

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value.

        Raises:
            TrainingError: No teacher has said anything about these positions.
        """
        found = positions.signals.get("aligned")
        if found is None:
            raise TrainingError(
                f"records {', '.join(positions.record_ids[:4])}",
                "the objective `cross_tokenizer` needs a teacher in memory, and there is none.",
                "Train through a pipeline, or give `train` an AlignedTeacher.",
            )
        value = positions.hidden.sum() * 0  # a batch in which nothing is aligned still has a gradient: none
        if found.singles:
            value = value + self._singles(positions, found)
        if found.longer and self.params.spans == "all":
            value = value + self._longer(positions, found)
        return value

    def _singles(self, positions: Positions, found: Any) -> torch.Tensor:
        """Spans of one token each: the sparse loss over the tokens that both have."""
        import torch

        from distill_dagster.training.losses.sparse import Mix, Rows, sparse_loss

        chosen = torch.tensor([row for row, _ in found.singles], device=positions.hidden.device)
        hidden, head, bias = positions.hidden[chosen], None, None
        # All the student's tokens, or where there is no rest those that the teacher has as well.
        part: Any = found.both[:, 1] if found.closed and len(found.both) < found.words else slice(found.words)
        if positions.head is not None:
            head, bias = positions.head
            head, bias = head[part], None if bias is None else bias[part]
        else:
            hidden = hidden[:, part]
        # Without a share of the labels' own loss it does not matter which they are.
        rows = Rows(torch.zeros_like(chosen), positions.weights[chosen], positions.total)
        mix = Mix(self._divergence(), self.params.temperature)
        targets = found.targets(self.params.temperature, self.params.k)
        return sparse_loss(hidden, head, rows, targets, mix, bias=bias)[0]

    def _longer(self, positions: Positions, found: Any) -> torch.Tensor:
        """Spans of more tokens: what each gives their bytes, against anything else; a span weighs as one token."""
        import torch

        hot = self.params.temperature
        device = positions.hidden.device
        flat = torch.tensor([row for mine, _ in found.longer for row in mine], device=device)
        owner = torch.tensor([number for number, (mine, _) in enumerate(found.longer) for _ in mine], device=device)
        logits = positions.project(positions.hidden[flat]).float()[:, : found.words] / hot
        said = logits.log_softmax(-1).gather(1, positions.labels[flat][:, None])[:, 0]
        log_q = said.new_zeros(len(found.longer)).index_add(0, owner, said)
        spoken = found.spoken(hot).cpu()  # A span at a time is quicker there than in as many kernels.
        log_p = torch.stack([spoken[theirs].sum() for _, theirs in found.longer]).to(device)
        value, _ = self._divergence()(_or_else(log_p), _or_else(log_q))
        counts = torch.bincount(owner).to(positions.weights.dtype)
        weights = torch.zeros_like(counts).index_add(0, owner, positions.weights[flat]) / counts
        return hot**2 * (weights * value).sum() / positions.total

    def _divergence(self) -> Any:
        from distill_dagster.training.losses.divergences import Divergence

        return Divergence(self.params.kind, self.params.beta, self.params.alpha)


def _or_else(log_p: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of an event and of its opposite, R × 2."""
    import torch

    log_p = log_p.clamp(max=-1e-6)
    # log(1 − p), by whichever form does not cancel.
    sure = torch.log(-torch.expm1(log_p.clamp(min=-1.0)))
    unsure = torch.log1p(-torch.exp(log_p.clamp(max=-0.5)))
    return torch.stack((log_p, torch.where(log_p > -0.7, sure, unsure)), -1)
