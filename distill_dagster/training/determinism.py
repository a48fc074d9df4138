"""What makes the same inputs give the same bytes: kernels, threads, random numbers; all put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from distill_dagster.config.models import Recipe
from distill_dagster.training.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def settled(recipe: Recipe, world: World) -> Iterator[None]:
    """Deterministic kernels, the recipe's threads and seed; all put back afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False
    try:
        with own_random(world):
            torch.manual_seed(recipe.seed)
            yield
    finally:
        settings.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def prepare(model: PreTrainedModel, world: World) -> None:
    """Allow other kernels where an operation of the model has no deterministic one on this GPU; never on a CPU.

    The same bytes are then not promised. They are allowed only where they must be, since torch's attention is not
    deterministic as soon as they are.
    """
    if world.device.type != "cuda":
        return
    ids = torch.arange(8, device=world.device)[None]
    training = model.training
    model.train()
    try:
        with own_random(world), torch.enable_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().sum().backward()
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        torch.use_deterministic_algorithms(True, warn_only=True)
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)


def own_random(world: World) -> Any:
    """Random numbers drawn inside leave those outside as they were."""
    return torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else [])
