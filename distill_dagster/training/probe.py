"""A classifier's head, fitted to the frozen encoder before the rest is trained: LP-FT (Kumar et al. 2022,
"Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution").

A head that is drawn sends the encoder gradients that mean nothing until it has learnt something itself, and by then
they have changed what the encoder knew. Fitted first, it begins where a linear model on frozen features ends, and the
rest needs few steps at a low rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from distill_dagster.errors import TrainingError
from distill_dagster.models.classifier import is_classifier
from distill_dagster.training.forward import Forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill_dagster.config.recipe import Recipe
    from distill_dagster.training.data import Example
    from distill_dagster.training.world import World

#: Largest relative difference (Frobenius) between the head's product and the model's logits that counts as rounding.
TOLERANCE = 1e-3
_ROUNDS = 100


def fit(
    model: PreTrainedModel, examples: Sequence[Example], recipe: Recipe, padding: int, world: World, place: str
) -> dict[str, Any]:
    """Put the head there that multinomial logistic regression finds on what the frozen encoder says; in place.

    Minimises the weighted mean cross-entropy of the records' labels, plus `l2` times the squared weights and biases,
    over standardised features, in float64 by L-BFGS. It is convex: the head that stood there before does not matter.

    Args:
        model: A classifier whose last linear layer gives its logits from one vector a record.
        examples: Records with their labels.
        recipe: Its `linear_probe`, precision and tokens a batch.
        padding: The token to fill rows with.
        world: The first process's head is everyone's.
        place: What an error names.

    Returns:
        Records it was fitted on, and the share of them that it answers as they are labelled.

    Raises:
        TrainingError: The model is no classifier, has no such head, or says something that is not finite.
    """
    options = recipe.linear_probe
    assert options is not None
    layer = head(model, place)
    # Evenly over all of them, whatever they are sorted by.
    step = max(1.0, len(examples) / options.records)
    taken = [examples[int(number * step)] for number in range(min(len(examples), options.records))]
    said = features(model, layer, taken, recipe, padding, place).double().cpu()
    labels = torch.tensor([example.label or 0 for example in taken])
    weights = torch.tensor([example.weights[-1] for example in taken], dtype=torch.float64)
    weight, bias = regression(said, labels, weights / weights.sum(), layer.out_features, options.l2)
    right = ((said @ weight.T + bias).argmax(1) == labels).double().mean().item()
    if world.size > 1:  # Machines may round apart.
        own = [*weight.flatten().tolist(), *bias.tolist()] if world.first else [0.0] * (weight.numel() + bias.numel())
        shared = torch.tensor(world.sums(own), dtype=torch.float64)
        weight, bias = shared[: weight.numel()].view_as(weight), shared[weight.numel() :]
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias)
    return {"records": len(taken), "right": right}


def head(model: PreTrainedModel, place: str) -> torch.nn.Linear:
    """The last linear layer that has an output for each label.

    Raises:
        TrainingError: The model is no classifier, or has none.
    """
    count = model.config.num_labels if is_classifier(model) else None
    found = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and layer.out_features == count]
    if not found:
        reason = "it is no classifier" if count is None else f"no linear layer of it has {count} outputs"
        raise TrainingError(
            place,
            f"linear_probe fits a classifier's head, and {type(model).__name__} has none: {reason}.",
            "Leave `linear_probe` out, or start from an encoder.",
        )
    return found[-1]


def features(
    model: PreTrainedModel,
    layer: torch.nn.Linear,
    examples: Sequence[Example],
    recipe: Recipe,
    padding: int,
    place: str,
) -> torch.Tensor:
    """What enters the head, N × H: the encoder as it is served, without dropout.

    Raises:
        TrainingError: The head's product is not what the model answers.
    """
    forward, kept = Forward(model, recipe.precision), []
    hook = layer.register_forward_pre_hook(lambda _, entered: kept.append(entered[0].detach().float()))
    found = torch.zeros(len(examples), layer.in_features)
    # Of like length side by side, the longest first: little padding.
    order = sorted(range(len(examples)), key=lambda number: -len(examples[number].ids))
    was, first = model.training, 0
    model.eval()
    try:
        with torch.no_grad():
            while first < len(order):
                size = max(1, recipe.batch_tokens // len(examples[order[first]].ids))
                some = order[first : first + size]
                kept.clear()
                logits = forward([examples[number] for number in some], padding).hidden
                if kept and not bool(kept[-1].isfinite().all()):
                    ids = ", ".join(examples[number].record_id for number in some[:8])
                    reason = f"what the encoder says of records {ids}{', …' if len(some) > 8 else ''} is not finite."
                    raise TrainingError(place, reason, "Look at its weights, or train in fp32.")
                if first == 0:
                    _agrees(layer, kept, logits, recipe, place)
                found[some] = kept[-1].cpu()
                first += size
    finally:
        hook.remove()
        model.train(was)
    return found


def _agrees(layer: torch.nn.Linear, kept: list[torch.Tensor], logits: torch.Tensor, recipe: Recipe, place: str) -> None:
    """TrainingError where the model does more with the head's product than to answer it, or the head reads tokens."""
    allowed = TOLERANCE if recipe.precision == "fp32" else 0.05
    entered = kept[-1] if kept else torch.zeros(0)
    if entered.dim() == 2 and entered.shape[0] == logits.shape[0]:
        bias = 0 if layer.bias is None else layer.bias.float()
        own = entered @ layer.weight.float().T + bias
        if own.shape == logits.shape and (own - logits).norm() <= allowed * logits.norm().clamp_min(1e-6):
            return
    raise TrainingError(
        place,
        "linear_probe fits a head that answers from one vector a record, and this model's does not.",
        "Leave `linear_probe` out.",
    )


def regression(
    features: torch.Tensor, labels: torch.Tensor, shares: torch.Tensor, count: int, l2: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multinomial logistic regression over standardised features.

    Args:
        features: N × H, float64.
        labels: N numbers below `count`.
        shares: N weights that sum to 1.
        count: Labels; one that no record has gets a low bias.
        l2: Weight of the squared parameters.

    Returns:
        Weights, count × H, and biases, for features as they are.
    """
    centre = (shares[:, None] * features).sum(0)
    spread = (shares[:, None] * (features - centre) ** 2).sum(0).sqrt()
    # A feature that hardly varies tells nothing, and must not blow up.
    spread = spread.clamp_min(max(1e-6 * spread.max().item(), 1e-12))
    scaled = (features - centre) / spread
    weight = torch.zeros(count, features.shape[1], dtype=features.dtype, requires_grad=True)
    bias = torch.zeros(count, dtype=features.dtype, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        logits = scaled @ weight.T + bias
        own = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        value = (shares * own).sum() + l2 * (weight.square().sum() + bias.square().sum())
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)  # pyright: ignore[reportArgumentType]
    plain = (weight / spread).detach()
    return plain, bias.detach() - plain @ centre
