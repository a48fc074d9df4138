"""A teacher in memory: it reads the same tokens as the student, at every step again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from distill_dagster.errors import TrainingError
from distill_dagster.models import folder
from distill_dagster.models.padding import padding
from distill_dagster.training.data import Example
from distill_dagster.training.forward import Forward
from distill_dagster.training.losses.targets import Live
from distill_dagster.training.objectives.base import Positions
from distill_dagster.training.signals.store import tokenizer_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LiveTeacher:
    """A teacher's folder, held in memory while a student trains.

    Args:
        path: Its model folder.
        tokenizer: The student's tokenizer, which must be the teacher's own.
        dtype: Precision it runs in: fp32 or bf16.

    Raises:
        TrainingError: Another tokenizer: the same ids would be other words.
    """

    name = "live"

    def __init__(self, path: Path, tokenizer: PreTrainedTokenizerBase, dtype: str = "fp32") -> None:
        own = folder.load_tokenizer(path)
        if tokenizer_digest(own) != tokenizer_digest(tokenizer):
            raise TrainingError(
                str(path),
                f"the teacher's tokenizer ({len(own):,} tokens) is not the student's ({len(tokenizer):,} tokens).",
                "Start the student from a model with the teacher's tokenizer, or use the objective `cross_tokenizer`.",
            )
        self.model = folder.load_model(path)
        self.padding = padding(self.model, own)
        self.words = len(own)
        self.context = folder.context_length(self.model)
        self.forward = Forward(self.model, dtype)
        self.digest = folder.digest(path)

    def to(self, device: torch.device) -> None:
        """Compute there from now on."""
        self.model.to(device)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def __call__(self, examples: Sequence[Example], positions: Positions) -> LiveBatch:
        """What the teacher's last layer says at the positions of a batch.

        Raises:
            TrainingError: A record longer than the teacher's context; names it.
        """
        for example in examples:
            require_room(example, self.context)
        said = self.forward(list(examples), self.padding)
        return LiveBatch(said, self.words)


def require_room(example: Example, context: int) -> None:
    """TrainingError where a record is longer than its teacher's context."""
    if len(example.ids) > context:
        raise TrainingError(
            f"record {example.record_id}",
            f"it has {len(example.ids)} of the teacher's tokens, more than its context, {context}.",
            "Lower training.max_length, or let a filter drop such records.",
        )


@dataclass(frozen=True)
class LiveBatch:
    """The teacher's states at one batch's positions."""

    said: Positions
    words: int

    @property
    def vocabulary(self) -> int:
        """Tokens that both models know; output layers may be padded beyond them."""
        size = self.said.hidden.shape[1] if self.said.head is None else len(self.said.head[0])
        return min(size, self.words)

    def targets(self, temperature: float, k: int) -> Live:
        """The teacher's distribution at a temperature, as the loss takes it."""
        head, bias = self.said.head or (None, None)
        return Live(self.said.hidden, head, self.vocabulary, bias, temperature, k)
