"""Samples of one prompt beside each other: the group of GRPO."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from distill_dagster.training.data import Example
from distill_dagster.training.own_samples import Rollout

#: Added to a standard deviation before dividing by it.
EPSILON = 1e-4


@dataclass(frozen=True)
class Sample:
    """One answer of a student.

    Attributes:
        group: Number of the prompt it answers, within its sampling.
        record: The record whose prompt that is.
        prompt: Token ids of the prompt.
        said: Token ids of the answer.
        text: The answer.
        cut: Whether its room ended it.
    """

    group: int
    record: Example
    prompt: list[int]
    said: list[int]
    text: str
    cut: bool

    def rollout(self, made: int, advantage: float = 0.0, by_sequence: bool = False) -> Rollout:
        """What is learned from it; with `by_sequence` its tokens weigh 1 together, else each."""
        weight = 1 / len(self.said) if by_sequence else 1.0
        return Rollout(
            self.record.record_id,
            [*self.prompt, *self.said],
            [0.0] * len(self.prompt) + [weight] * len(self.said),
            self.record.task,
            made=made,
            advantage=advantage,
        )


def advantages(groups: Sequence[int], rewards: Sequence[float], std: bool) -> list[float]:
    """Each reward less its group's mean, over the group's standard deviation (n − 1) where wanted; 0 in an equal group.

    Args:
        groups: The group of each sample.
        rewards: Its reward.
        std: Divide by the standard deviation.
    """
    members: dict[int, list[float]] = {}
    for group, reward in zip(groups, rewards, strict=True):
        members.setdefault(group, []).append(reward)
    found = []
    for group, reward in zip(groups, rewards, strict=True):
        own = members[group]
        if max(own) == min(own):
            found.append(0.0)
            continue
        apart = reward - statistics.fmean(own)
        found.append(apart / (statistics.stdev(own) + EPSILON) if std else apart)
    return found
