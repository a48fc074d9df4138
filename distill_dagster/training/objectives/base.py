"""What an objective is: a number to make small, from the positions of a batch that carry a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import ValidationError

from distill_dagster.config import registry
from distill_dagster.config.models import Recipe
from distill_dagster.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from distill_dagster.training.data import Example
    from distill_dagster.training.layers import Layers
    from distill_dagster.training.own_samples import Plan

PACKAGE = "distill_dagster.training.objectives"


@dataclass
class Positions:
    """The R positions of a batch that carry a loss; prompts and padding of weight 0 are not among them.

    Attributes:
        hidden: Last hidden states at the positions *before* each label, R × H.
        labels: The token to predict, R.
        weights: Its loss weight, R: 0 at the rejected answer of a preference pair, and nowhere else.
        rows: The example of the batch each position belongs to, R.
        examples: The examples of the batch.
        project: From hidden states to logits; objectives that need only some columns may do without.
        head: Output layer (V × H, in the precision of its matrix products) and bias (V, or None), for objectives that
            never hold all logits; None where `hidden` holds logits already.
        signals: What is known beside the text, by where it comes from: `stored`, `live` and `aligned` are a teacher's
            probabilities, `reference` the log-probability of each example under the student before training.
        measures: What a term found beside its value and wants in `metrics.jsonl`, under the names that it lists in
            `measures`; means over the same as its value.
        layers: What the student's layers said about all positions of the batch; None where no term asks.
    """

    hidden: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    rows: torch.Tensor
    examples: Sequence[Example]
    project: Callable[[torch.Tensor], torch.Tensor]
    head: tuple[torch.Tensor, torch.Tensor | None] | None = None
    signals: Mapping[str, Any] = field(default_factory=dict)
    measures: dict[str, float | torch.Tensor] = field(default_factory=dict)
    layers: Layers | None = None

    @property
    def record_ids(self) -> list[str]:
        """Record of each example of the batch."""
        return [example.record_id for example in self.examples]

    @cached_property
    def logits(self) -> torch.Tensor:
        """Student logits, R × V, fp32; computed once for all objectives that ask."""
        return self.project(self.hidden).float()

    @cached_property
    def log_probs(self) -> torch.Tensor:
        """Log-probability of each label, R, with a gradient; computed once, and never with all logits in memory."""
        from distill_dagster.training.losses.log_probs import log_probs

        return log_probs(self.hidden, self.head, self.labels)

    @cached_property
    def total(self) -> torch.Tensor:
        """Sum of the weights: what weighted means are divided by."""
        return self.weights.sum()


@dataclass(frozen=True)
class Need:
    """What an objective needs a teacher for.

    Attributes:
        source: stored: signals captured beforehand; live: the teacher itself, in memory; aligned: a teacher in memory
            with a tokenizer of its own.
        k: How many tokens of each position; 0 for all (live only).
        temperature: At which temperature.
    """

    source: Literal["stored", "live", "aligned"]
    k: int
    temperature: float


class Objective(Protocol):
    """One term of a training loss. A term of weight w adds w times its value.

    A term with parameters has a class `Params` (a config model) and takes one; a term that learns from a teacher's
    probabilities says so in `need`; one that learns from a teacher's layers has a method `bind`
    (`distill_dagster.training.features`); one that learns from other batches than the records themselves names them in
    `feed` (`distill_dagster.training.feeds`); one that compares itself with the student before training sets
    `reference` (`distill_dagster.training.reference`); one that tells more numbers than its value names them in
    `measures` and puts them into `Positions.measures`.
    """

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value in nats a token, a scalar with a gradient."""
        ...


def build(name: str, params: Mapping[str, Any], place: str = "training.objective") -> Any:
    """The objective `name` with its parameters.

    Raises:
        ConfigError: No such objective, a parameter it does not know, or a value it may not have.
    """
    objective = registry.load(PACKAGE, name, "Objective", place)
    model = getattr(objective, "Params", None)
    if model is None:
        if params:
            raise ConfigError(f"{place}.{name}", f"it takes no parameters ({', '.join(params)}).", "Give a weight.")
        return objective()
    try:
        return objective(model(**params))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        hint = registry.nearest(key, model.model_fields) if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{place}.{name}.{key}", f"{first['msg']} (value {first['input']!r}).", hint) from error


def samples(recipe: Recipe) -> list[Plan]:
    """What the terms of a recipe want the student itself to say; empty where they learn from records alone."""
    built = (build(name, params) for name, (weight, params) in recipe.terms.items() if weight)
    return [objective.plan for objective in built if getattr(objective, "plan", None) is not None]


def needs(recipe: Recipe) -> list[Need]:
    """What the terms of a recipe need a teacher for; empty where text is enough."""
    built = (build(name, params) for name, (weight, params) in recipe.terms.items() if weight)
    return [objective.need for objective in built if getattr(objective, "need", None) is not None]


def from_pairs(recipe: Recipe) -> bool:
    """Whether a recipe learns from preference pairs."""
    built = (build(name, params) for name, (weight, params) in recipe.terms.items() if weight)
    return any(getattr(objective, "feed", None) == "pairs" for objective in built)
