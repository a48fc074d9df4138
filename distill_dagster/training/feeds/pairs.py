"""Preference pairs, each once an epoch and never torn, in an order that the recipe's seed decides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distill_dagster.errors import ConfigError, TrainingError
from distill_dagster.training.data import batches
from distill_dagster.training.pairs import EMPTY, whole

if TYPE_CHECKING:
    from distill_dagster.training.data import Example
    from distill_dagster.training.feeds.base import Setting


class Feed:
    """Batches of whole pairs. A pair takes twice its longer answer, so padding counts against `batch_tokens`.

    Terms that name no feed learn from the chosen answers: the rejected ones have weight 0. It keeps no state: a step
    alone says which batch comes next.

    Raises:
        ConfigError: `prompt_loss_weight` is above 0: a pair compares answers.
        TrainingError: There is no pair, one that lacks an answer, or one that is longer than a batch.
    """

    shared = True

    def __init__(self, setting: Setting) -> None:
        examples, recipe = setting.examples, setting.recipe
        if recipe.prompt_loss_weight:
            raise ConfigError(
                "training.prompt_loss_weight",
                "preference pairs compare answers, and this asks for the prompt's tokens as well.",
                "Set it to 0.",
            )
        if not examples:
            raise TrainingError("preference pairs", "there is no pair.", EMPTY)
        self.setting = setting
        self.pairs = whole(examples, "the feed `pairs`")
        self.lengths = [2 * max(len(examples[at].ids) for at in pair) for pair in self.pairs]
        if max(self.lengths) > recipe.batch_tokens:
            at = self.lengths.index(max(self.lengths))
            raise TrainingError(
                f"record {examples[self.pairs[at][0]].record_id}",
                f"its pair takes {self.lengths[at]} tokens, more than batch_tokens {recipe.batch_tokens}.",
                "Raise training.batch_tokens to twice training.max_length, or lower max_length.",
            )

    def batches(self, step: int) -> Iterator[list[Example]]:
        """The batches from optimizer step `step` on; of each pair the chosen answer comes first."""
        examples, recipe = self.setting.examples, self.setting.recipe
        for batch in itertools.islice(batches(self.lengths, recipe.batch_tokens, recipe.seed), step, None):
            yield [examples[at] for number in batch for at in self.pairs[number]]

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing."""
