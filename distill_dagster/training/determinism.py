"""What makes the same inputs give the same bytes: kernels, threads, random numbers; all put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from distill_dagster.config.models import Recipe
from distill_dagster.training.world import World


@contextmanager
def settled(recipe: Recipe, world: World) -> Iterator[None]:
    """Deterministic kernels, the recipe's threads and seed; all put back afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    torch.set_num_threads(recipe.threads)
    # Some operations have no deterministic kernel on a GPU; there the same bytes are not promised.
    torch.use_deterministic_algorithms(True, warn_only=world.device.type == "cuda")
    settings.fill_uninitialized_memory = False
    try:
        with own_random(world):
            torch.manual_seed(recipe.seed)
            yield
    finally:
        settings.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def own_random(world: World) -> Any:
    """Random numbers drawn inside leave those outside as they were."""
    return torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else [])
