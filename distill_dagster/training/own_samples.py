"""Learning from the student's own samples: what an objective asks of the feed `rollouts`, and what it gets.

GKD (Agarwal et al. 2024) learns from the teacher's opinion of them, GRPO (Shao et al. 2024) from a verifier's.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from distill_dagster.config.strict import Strict
from distill_dagster.training.data import Example


class Sampling(Strict):
    """How often, and what, a student samples; parameters of every objective that learns from it."""

    every: int = Field(1, ge=1, description="Optimizer steps that learn from the same samples before it samples anew")
    prompts: int = Field(16, ge=1, description="Prompts of the records that are answered each time")
    sampling_temperature: float = Field(1.0, gt=0, le=100, description="Of the samples")
    max_new_tokens: int | None = Field(
        None, ge=1, description="Room of a sample; left out: as much as the records' longest answer takes"
    )
    buffer: int | None = Field(
        None, ge=1, description="Newest samples that are kept to learn from; left out: those of the last time alone"
    )
    max_age: int | None = Field(None, ge=1, description="Steps after which a sample is learned from no more")


@dataclass(frozen=True)
class Judging:
    """How samples are rewarded and held against each other.

    Attributes:
        std: Divide advantages by the group's standard deviation.
        sequences: Every sample weighs the same, however long it is; else every token does.
        keep_equal: Learn from groups of equal rewards too: without a gradient, but they count in the mean.
        well_formed: Added for an answer that has the task's form.
        cut: Subtracted for an answer that was cut at its room.
        reference: Log-probabilities of the student before training are needed too.
    """

    std: bool
    sequences: bool
    keep_equal: bool
    well_formed: float
    cut: float
    reference: bool


@dataclass(frozen=True)
class Plan:
    """What the feed `rollouts` does for an objective.

    Attributes:
        sampling: How it samples.
        group: Samples a prompt.
        share: Share of the batches that are samples; the others are records (GKD's lambda).
        judging: How samples are rewarded; None where nobody does.
    """

    sampling: Sampling
    group: int = 1
    share: float = 1.0
    judging: Judging | None = None

    @property
    def buffer(self) -> int:
        """Samples that are kept."""
        return self.sampling.buffer or self.sampling.prompts * self.group


@dataclass(frozen=True)
class Rollout(Example):
    """A prompt with an answer that the student sampled; loss weights are those of the answer's tokens.

    Attributes:
        made: Optimizer steps that were done when it was sampled.
        old: Log-probability of each token of the answer as it was sampled, at the sampling temperature.
        reference: The same by the student before training.
        advantage: How much better it is than its group.
    """

    made: int = 0
    old: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    advantage: float = 0.0
