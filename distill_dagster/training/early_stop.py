"""Stopping where the validation loss no longer falls, with the weights of its lowest value (Prechelt 1998)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from distill_dagster.config.recipe import EarlyStop

#: Where a checkpoint holds the best weights, beside the optimizer's tensors.
PREFIX = "best/"


class Stopping:
    """Watches the validation loss of one run.

    Attributes:
        best: Lowest loss so far, in nats a token; infinite before the first look.
        step: The step it was seen at.
        waited: Looks since then.
        weights: The weights at that step, on the CPU.
    """

    def __init__(self, options: EarlyStop) -> None:
        self.options = options
        self.best, self.step, self.waited = math.inf, 0, 0
        self.weights: dict[str, torch.Tensor] = {}

    def due(self, step: int, steps: int) -> bool:
        """Whether to look after this step; always after the last one."""
        return step % self.options.every == 0 or step == steps

    def look(self, step: int, loss: float, parameters: Mapping[str, torch.Tensor]) -> None:
        """Take note of a validation loss, and of the weights where it is a new best."""
        if loss < self.best - self.options.min_delta or not self.weights:
            self.best, self.step, self.waited = loss, step, 0
            self.weights = {name: value.detach().cpu().clone() for name, value in parameters.items()}
        else:
            self.waited += 1

    @property
    def over(self) -> bool:
        """Whether it has waited long enough."""
        return self.waited >= self.options.patience

    def summary(self, step: int) -> dict[str, Any]:
        """Where the run ended, why, and which weights it keeps."""
        seen = f"the lowest validation loss, {self.best:.4f}, was at step {self.step}"
        why = f"{self.waited} looks without a lower one" if self.over else "all steps were done"
        found = {"stopped_at": step, "stopped_early": self.over, "best_step": self.step}
        return {**found, "best_validation_loss": self.best, "stop_reason": f"{why}; {seen}"}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, as JSON."""
        return {"best": self.best, "step": self.step, "waited": self.waited} if self.weights else {}

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps of it, as tensors."""
        return {f"{PREFIX}{name}": value for name, value in self.weights.items()}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` and `tensors` gave; other tensors are left alone."""
        if state:
            self.best, self.step, self.waited = float(state["best"]), int(state["step"]), int(state["waited"])
            self.weights = {
                name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)
            }
