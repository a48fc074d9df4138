"""The optimizer of every run, whoever takes its steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from distill_dagster.config.models import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def adamw(model: PreTrainedModel, parameters: Iterable[torch.Tensor], recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over what is trained, without decay on norms and embeddings.

    Args:
        model: Whose input embedding is spared.
        parameters: What is trained: the model's, and what is learned beside it.
        recipe: Learning rate, decay, betas.
    """
    trained = list(parameters)
    # Norms are vectors; an embedding's rows are as rare as its words, so decay would only shrink the rare ones.
    inputs = model.get_input_embeddings().weight
    kept = [entry for entry in trained if entry.dim() < 2 or entry is inputs]
    decayed = [entry for entry in trained if entry.dim() >= 2 and entry is not inputs]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": kept, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, recipe.beta2),
        # One pass over memory: without it a CPU writes a dozen temporary copies of a model's embedding every step.
        fused=all(entry.is_floating_point() and entry.device.type in ("cpu", "cuda") for entry in trained),
    )
