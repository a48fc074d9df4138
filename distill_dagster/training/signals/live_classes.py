"""A classifier in memory as a teacher: it reads the student's texts with its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from distill_dagster.errors import TrainingError
from distill_dagster.models import classifier, folder
from distill_dagster.models.chat import plain_tokens
from distill_dagster.models.padding import padding
from distill_dagster.training.classify import match
from distill_dagster.training.data import Example
from distill_dagster.training.forward import Forward
from distill_dagster.training.objectives.base import Positions
from distill_dagster.training.signals.live import LiveBatch, require_room


class LiveClassifier:
    """A teacher's folder, held in memory while a student of the same labels trains.

    Args:
        path: Its model folder.
        labels: The student's labels, in the order of its logits; the teacher's may stand in another.
        dtype: Precision it runs in: fp32 or bf16.

    Raises:
        TrainingError: It is no classifier, or one of other labels; names them.
    """

    name = "live"

    def __init__(self, path: Path, labels: Sequence[str], dtype: str = "fp32") -> None:
        require(path)
        self.model, self.tokenizer = folder.load_model(path), folder.load_tokenizer(path)
        self.order = torch.tensor(match(classifier.labels(self.model), labels, str(path)))
        self.padding = padding(self.model, self.tokenizer)
        self.context = folder.context_length(self.model)
        self.forward = Forward(self.model, dtype)
        self.digest = folder.digest(path)

    def to(self, device: torch.device) -> None:
        """Compute there from now on."""
        self.model.to(device)  # pyright: ignore[reportArgumentType]
        self.order = self.order.to(device)

    @torch.no_grad()
    def __call__(self, examples: Sequence[Example], positions: Positions) -> LiveBatch:
        """The teacher's logits on the texts of a batch, in the student's order of labels."""
        said = self.forward([self._own(example) for example in examples], self.padding)
        return LiveBatch(replace(said, hidden=said.hidden[:, self.order]), len(self.order))

    def _own(self, example: Example) -> Example:
        ids = plain_tokens(self.tokenizer, example.text, True)
        read = replace(example, ids=ids, weights=[1.0] * len(ids))
        require_room(read, self.context)
        if self.forward.watch and ids != example.ids:
            raise TrainingError(
                f"record {example.record_id}",
                "the teacher reads other tokens than the student, and a term compares their layers token by token.",
                "Give both the same tokenizer, or use `divergence` or `sft`.",
            )
        return read


def require(path: Path) -> None:
    """TrainingError unless a folder holds a classifier."""
    if classifier.kind(path) != "classifier":
        raise TrainingError(
            str(path),
            "the teacher writes text, and the student is a classifier: one speaks of tokens, the other of labels.",
            "Fit an encoder as the teacher, or learn from the teacher's answers alone, with `sft`.",
        )
