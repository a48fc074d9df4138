"""What a feed is: where the batches of a training run come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from distill_dagster.config import registry
from distill_dagster.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from distill_dagster.config.models import Recipe
    from distill_dagster.training.data import Example

PACKAGE = "distill_dagster.training.feeds"
#: The feed of objectives that name none.
DEFAULT = "examples"


@dataclass(frozen=True)
class Setting:
    """What a feed draws from: the student as it stands at each step, and the encoded records."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Example]
    recipe: Recipe


class Feed(Protocol):
    """Batches without end. The same setting, step and state give the same batches.

    A feed with an attribute `shared` that is true serves terms that name no feed as well.
    """

    def __init__(self, setting: Setting) -> None: ...

    def batches(self, step: int) -> Iterator[list[Example]]:
        """The batches after the first `step` ones; an optimizer step takes `recipe.accumulate` of them."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold so that the batches go on as they would have, as JSON; mostly nothing."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        ...


def build(objectives: Iterable[tuple[str, Any]], setting: Setting) -> Feed:
    """The feed that the named objectives ask for by their attribute `feed`.

    Raises:
        ConfigError: Two of them ask for different ones.
    """
    asked = {getattr(objective, "feed", DEFAULT): name for name, objective in objectives}
    named = [feed for feed in asked if feed != DEFAULT]
    if len(named) == 1 and getattr(registry.load(PACKAGE, named[0], "Feed", "training.objective"), "shared", False):
        asked.pop(DEFAULT, None)
    if len(asked) > 1:
        (one, first), (other, second) = list(asked.items())[:2]
        raise ConfigError(
            "training.objective",
            f"{first!r} learns from {one} and {second!r} from {other}: one run has one kind of batch.",
            "Train one after the other, the second student starting from the first.",
        )
    return registry.load(PACKAGE, next(iter(asked), DEFAULT), "Feed", "training.objective")(setting)
