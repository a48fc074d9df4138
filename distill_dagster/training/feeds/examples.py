"""The records themselves, each once an epoch, in an order that the recipe's seed decides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distill_dagster.training.data import batches
from distill_dagster.training.rationale import groups

if TYPE_CHECKING:
    from distill_dagster.training.data import Example
    from distill_dagster.training.feeds.base import Setting


class Feed:
    """See `distill_dagster.training.data.batches`. It keeps no state: a step alone says which batch comes next."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def batches(self, step: int) -> Iterator[list[Example]]:
        """The batches after the first `step` ones."""
        examples, recipe = self.setting.examples, self.setting.recipe
        # An answer and its explanation go into one batch, so that every step learns from both.
        together = groups(examples)
        sizes = [[len(examples[index].ids) for index in group] for group in together]
        most = max(map(len, together), default=1)
        lengths = [sum(size) if recipe.packing else most * max(size) for size in sizes]
        order = batches(lengths, recipe.batch_tokens, recipe.seed, recipe.packing)
        for batch in itertools.islice(order, step, None):
            yield [examples[index] for number in batch for index in together[number]]

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing."""
