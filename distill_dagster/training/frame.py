"""The frame around a run, whoever takes its steps: what it counts, writes down, and says in the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_dagster.errors import TrainingError
from distill_dagster.training import metrics, resuming
from distill_dagster.training.optimizer import adamw
from distill_dagster.training.schedule import rate

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from distill_dagster.config.models import Recipe
    from distill_dagster.training.data import Example
    from distill_dagster.training.early_stop import Stopping
    from distill_dagster.training.rewards import Rewards
    from distill_dagster.training.trainer import Signals
    from distill_dagster.training.world import World

#: Called with (step, steps, loss) at every logged step.
Progress = Callable[[int, int, float], None]


class Frame:
    """One run. Whoever takes its steps sets `feed`, which keeps a state, and `prepare`s it."""

    feed: Any
    stopping: Stopping | None = None
    progress: Progress | None = None

    def __init__(
        self,
        model: PreTrainedModel,
        examples: Sequence[Example],
        recipe: Recipe,
        folder: Path,
        world: World,
        signals: Sequence[Signals] = (),
        rewards: Rewards | None = None,
    ) -> None:
        self.model, self.examples, self.recipe, self.folder = model, examples, recipe, folder
        self.world, self.signals, self.rewards = world, signals, rewards
        self.log, self.means = folder / metrics.FILE, metrics.Means()
        self.step = self.tokens = self.learned = 0
        self.elapsed = 0.0

    def prepare(self, beside: Mapping[str, torch.Tensor] | None = None) -> None:
        """The optimizer over what is trained: the model, and what is learned beside it."""
        own = {name: entry for name, entry in self.model.named_parameters() if entry.requires_grad}
        self.size = sum(entry.numel() for entry in own.values())
        self.parameters = {**own, **(beside or {})}
        self.optimizer = adamw(self.model, self.parameters.values(), self.recipe)
        self.fingerprint = resuming.fingerprint(self)

    def start(self) -> None:
        """The clock, once the run stands where it begins."""
        self.since = time.perf_counter()
        self.started, self.logged = self.since - self.elapsed, self.tokens

    def set_rate(self) -> None:
        """The learning rate of the step that comes."""
        recipe = self.recipe
        self.lr = recipe.learning_rate * rate(recipe.schedule, self.step, recipe.steps, recipe.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr

    def count(self, tokens: int, values: dict[str, float]) -> None:
        """A step was taken, with its tokens and its numbers."""
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self.means.add(values)
        self.elapsed = time.perf_counter() - self.started

    @property
    def to_log(self) -> bool:
        """Whether the step that was taken is logged."""
        return self.step in (1, self.recipe.steps) or self.step % self.recipe.log_every == 0

    @property
    def to_save(self) -> bool:
        """Whether a checkpoint stands behind the step that was taken."""
        return self.step % self.recipe.checkpoint_every == 0 and self.step < self.recipe.steps

    def write(self, values: Mapping[str, float], more: Mapping[str, float]) -> None:
        """A line of `metrics.jsonl`, of the step that was taken."""
        speed = (self.tokens - self.logged) / max(self.started + self.elapsed - self.since, 1e-9)
        row = {"step": self.step, **values, "lr": self.lr, "tokens": self.tokens}
        row |= {"tokens_per_second": round(speed, 1), "elapsed": round(self.elapsed, 3), **more}
        # A measure that is infinite has no number in JSON (RFC 8259): it is left out of the line.
        row = {name: value for name, value in row.items() if math.isfinite(value)}
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, allow_nan=False) + "\n")
        if self.progress is not None:
            self.progress(self.step, self.recipe.steps, values["loss"])
        self.since, self.logged = time.perf_counter(), self.tokens

    def summary(self, resumed: int, forward: str) -> dict[str, Any]:
        """How a run went that is over."""
        rows = metrics.read(self.log)
        return {
            "steps": self.step,
            "first_loss": rows[0]["loss"],
            "loss": rows[-1]["loss"],
            "examples": len(self.examples),
            "epochs": self.tokens / sum(len(example.ids) for example in self.examples),
            "tokens": self.tokens,
            "answer_tokens": self.learned,
            "parameters": self.size,
            "seconds": self.elapsed,
            "tokens_per_second": self.tokens / max(self.elapsed, 1e-9),
            "resumed_from": resumed,
            "forward": forward,
            "device": str(self.world.device),
        }

    @property
    def place(self) -> str:
        """What an error names."""
        return f"{self.folder}, step {self.step + 1} of {self.recipe.steps}"

    def trouble(self, reason: str, record_ids: Sequence[str]) -> TrainingError:
        """A step that cannot be taken, with the records it was to learn from, where they are known."""
        ids = list(dict.fromkeys(record_ids))
        where = "these records" if ids else "the data"
        shown = f"; records {', '.join(ids[:8])}" + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        return TrainingError(
            self.place,
            f"{reason}{shown if ids else ''}.",
            f"Lower training.learning_rate or raise warmup_steps, and look at {where}; "
            "earlier checkpoints and versions are untouched.",
        )
