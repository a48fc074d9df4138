"""Divergence from the teacher's distribution over the next token, mixed with the labels where wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from distill_dagster.config.strict import Strict
from distill_dagster.errors import TrainingError
from distill_dagster.training.losses.kinds import Kind
from distill_dagster.training.objectives.base import Need, Positions

if TYPE_CHECKING:
    import torch


class Objective:
    """Weighted mean of (1 − hard) · T² · D(teacher, student) + hard · cross-entropy, in nats a token.

    `kind` is forward (Hinton et al. 2015), reverse (MiniLLM), jsd (GKD), skew_forward or skew_reverse (DistiLLM).
    """

    class Params(Strict):
        """What a recipe may say."""

        kind: Kind = Field("forward", description="Which divergence; P is the teacher, Q the student")
        temperature: float = Field(1.0, gt=0, le=100, description="Divides both models' logits; T² keeps the gradient")
        beta: float = Field(0.5, gt=0, lt=1, description="jsd: M = βP + (1 − β)Q")
        alpha: float = Field(0.1, ge=0, lt=1, description="skew: how much of the first goes into the second")
        hard: float = Field(0.0, ge=0, lt=1, description="Share of the labels' cross-entropy")
        signals: Literal["stored", "live"] = Field(
            "stored", description="stored: captured once as teacher_signals; live: the teacher in memory"
        )
        k: int = Field(16, ge=0, le=1024, description="Tokens kept a position, the rest as one; 0, live only: all")

        @model_validator(mode="after")
        def _stored_has_a_size(self):
            if self.signals == "stored" and not self.k:
                raise ValueError("stored signals keep at least one token a position: give `k`")
            return self

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()  # pyright: ignore[reportCallIssue]
        self.need = Need(self.params.signals, self.params.k, self.params.temperature)

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value.

        Raises:
            TrainingError: No teacher has said anything about these positions.
        """
        from distill_dagster.training.losses.divergences import Divergence
        from distill_dagster.training.losses.sparse import Mix, Rows, sparse_loss

        params = self.params
        found = positions.signals.get(params.signals)
        if found is None:
            raise TrainingError(
                f"records {', '.join(positions.record_ids[:4])}",
                f"the objective `divergence` needs {params.signals} signals of a teacher, and there are none.",
                "Train through a pipeline, or give `train` a source of signals.",
            )
        hidden, head, bias = positions.hidden, None, None
        if positions.head is not None:
            head, bias = positions.head
            if found.vocabulary < len(head):
                head, bias = head[: found.vocabulary], None if bias is None else bias[: found.vocabulary]
        elif found.vocabulary < hidden.shape[1]:
            hidden = hidden[:, : found.vocabulary]
        rows = Rows(positions.labels, positions.weights, positions.total)
        mix = Mix(Divergence(params.kind, params.beta, params.alpha), params.temperature, params.hard)
        targets = found.targets(params.temperature, params.k)
        return sparse_loss(hidden, head, rows, targets, mix, bias=bias)[0]
