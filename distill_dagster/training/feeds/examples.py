"""The records themselves, each once an epoch, in an order that the recipe's seed decides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distill_dagster.training.data import batches

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
        order = batches([len(example.ids) for example in examples], recipe.batch_tokens, recipe.seed, recipe.packing)
        for batch in itertools.islice(order, step, None):
            yield [examples[index] for index in batch]

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing."""
