"""A run through one of TRL's stable trainers that starts, reports, stops and resumes as the built-in one does.

TRL computes losses, samples and takes steps; which examples a step learns from, the optimizer, its rate, checkpoints
and metrics are ours. So a run can be held against the built-in trainer number for number, and nothing is pickled: TRL
writes no checkpoints. A run that resumes is a shorter run of TRL's whose weights, optimizer, rate and examples begin
where the last one ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from distill_dagster.config.models import Recipe
from distill_dagster.errors import TrainingError
from distill_dagster.models.padding import padding
from distill_dagster.records.identity import digest
from distill_dagster.training import memory, resuming
from distill_dagster.training.data import Example
from distill_dagster.training.determinism import settled
from distill_dagster.training.frame import Frame, Progress
from distill_dagster.training.trl import library
from distill_dagster.training.world import World, device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from distill_dagster.training.rewards import Rewards


class Peer(Protocol):
    """What differs between TRL's trainers: the data, the arguments, the names of what they tell."""

    def trainer(self, common: Mapping[str, Any], **given: Any) -> Any:
        """TRL's trainer, which begins at the run's step when it trains."""
        ...

    def took(self, step: int) -> tuple[int, int]:
        """Tokens, and tokens of answers, that a step learned from."""
        ...

    def records(self, step: int) -> list[str]:
        """Records of a step, where they are known beforehand."""
        ...

    def row(self, logs: Mapping[str, float], loss: float) -> dict[str, float]:
        """Numbers for a logged step, under our names."""
        ...

    def whole_steps(self, step: int) -> bool:
        """Whether a checkpoint may stand after a step."""
        ...

    def summary(self) -> dict[str, Any]:
        """What the whole run was like, for the summary."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold of it, as JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        ...


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    recipe: Recipe,
    folder: str | Path,
    *,
    progress: Progress | None = None,
    rewards: Rewards | None = None,
    world: World | None = None,
) -> dict[str, Any]:
    """Train `model` in place by `dpo` (Rafailov et al. 2023) or `grpo` (Shao et al. 2024), through TRL.

    Arguments and summary are those of `distill_dagster.training.trainer.train`; the summary's `trainer` says which
    release of TRL it was.

    Raises:
        ConfigError: The recipe asks for what TRL's trainers cannot do.
        ModelError: trl is not installed, or too old.
        TrainingError: As the built-in trainer; or several processes train.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    library.require(recipe, str(path))
    world = world or World(device=device(recipe.device))
    if world.size > 1:
        reason = f"through TRL a run takes one process here, and there are {world.size}."
        raise TrainingError(str(path), reason, "Start it without torchrun.")
    if padding(model, tokenizer) != tokenizer.pad_token_id:
        size = model.get_input_embeddings().weight.shape[0]  # pyright: ignore
        raise TrainingError(
            str(path),
            f"TRL pads with the tokenizer's token {tokenizer.pad_token_id}, and the model has embeddings for {size:,}.",
            "Name a pad_token of the vocabulary in tokenizer_config.json, or use the built-in trainer.",
        )
    with settled(recipe, world), memory.told(str(path), recipe, [examples], str(world.device)):
        model.to(world.device)  # pyright: ignore[reportArgumentType]
        summary = Run(model, tokenizer, examples, recipe, path, rewards, world).go(progress)
        model.to("cpu")  # pyright: ignore[reportArgumentType]
        return summary


class Run(Frame):
    """One run of `train`."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        recipe: Recipe,
        folder: Path,
        rewards: Rewards | None,
        world: World,
    ) -> None:
        super().__init__(model, examples, recipe, folder, world, rewards=rewards)
        self.tokenizer, self.loss = tokenizer, 0.0
        self.feed = _peer(self)
        self.prepare()

    def go(self, progress: Progress | None) -> dict[str, Any]:
        """Train to the end, and say how it went."""
        from transformers import PrinterCallback

        recipe = self.recipe
        self.progress = progress
        # TRL asks the student before training while it is made, and in evaluation mode, as the built-in trainer does.
        self.model.eval()
        trainer = self.feed.trainer(
            self._common(),
            model=self.model,
            processing_class=self.tokenizer,
            callbacks=[follow(self)],
            # The rate is set before each step; a schedule that never changes it stands in TRL's place for one.
            optimizers=(self.optimizer, torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda _: 1.0)),
        )
        trainer.remove_callback(PrinterCallback)
        resumed = resuming.resume(self)
        trainer.args.max_steps = recipe.steps - self.step
        self.start()
        trainer.train()
        self.model.eval()
        return {
            **self.summary(resumed, "trl"),
            "trainer": f"trl {library.version()}",
            **self.feed.summary(),
        }

    def _common(self) -> dict[str, Any]:
        """Arguments that all of TRL's trainers take."""
        from transformers import TrainingArguments

        recipe = self.recipe
        # transformers has renamed it, and TRL has it on.
        checkpointing = {"activation_checkpointing", "gradient_checkpointing"} & set(
            TrainingArguments.__dataclass_fields__
        )
        return {
            min(checkpointing): False,
            "output_dir": str(self.folder / "trl"),
            "max_steps": recipe.steps,
            "learning_rate": recipe.learning_rate,
            "max_grad_norm": recipe.grad_clip,
            "seed": recipe.seed,
            "use_cpu": self.world.device.type == "cpu",
            "bf16": recipe.precision == "bf16",
            "disable_dropout": False,
            "dataloader_pin_memory": False,
            # What is kept and told is ours: TRL would pickle, filter what is not finite, and report to services.
            "save_strategy": "no",
            "logging_strategy": "no",
            "logging_nan_inf_filter": False,
            "report_to": "none",
            "disable_tqdm": True,
        }

    def begin(self) -> None:
        """Before a step: its rate, and random numbers that the seed and the step alone decide."""
        self.set_rate()
        torch.manual_seed(int(digest([self.recipe.seed, self.step])[:15], 16))
        self.loss = 0.0

    def learn(self, loss: float) -> None:
        """Count one batch's share of a step's loss. Raises TrainingError where it is not finite."""
        if not math.isfinite(loss):
            raise self._stopped(f"the loss is not finite ({loss})")
        self.loss += loss

    def clipped(self) -> None:
        """Before the optimizer moves: the gradient is clipped. Raises TrainingError where it is not finite."""
        gradients = [entry.grad for entry in self.parameters.values() if entry.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        if not math.isfinite(norm):
            raise self._stopped(f"the gradient is not finite (norm {norm})")

    def ended(self) -> bool:
        """After a step; whether it is logged."""
        tokens, learned = self.feed.took(self.step)
        self.learned += learned
        self.count(tokens, {"loss": self.loss})
        return self.to_log or self._due

    @property
    def _due(self) -> bool:
        """Whether a checkpoint stands here. It stands behind a logged step, since TRL keeps what is not logged yet."""
        return self.to_save and self.feed.whole_steps(self.step)

    def told(self, logs: Mapping[str, float]) -> None:
        """Write what TRL says of a logged step, and a checkpoint where it is time."""
        loss = self.means.take()["loss"]
        self.write({"loss": loss, **self.feed.row(logs, loss), "grad_norm": float(logs["grad_norm"])}, {})
        if self._due:
            resuming.save(self)

    def _stopped(self, reason: str) -> TrainingError:
        return self.trouble(reason, self.feed.records(self.step))


def follow(run: Run) -> Any:
    """A callback that tells a run what TRL's trainer does."""
    from transformers import TrainerCallback

    class Follow(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            run.begin()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            run.clipped()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            control.should_log = run.ended()
            return control

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            """At the very end TRL tells once more, of the time it took."""
            if "loss" in (logs or {}):
                run.told(logs)

    return Follow()


class Watched:
    """What both trainers of TRL's that are used have in common here; a class to put before theirs."""

    run: Run

    def training_step(self, *given: Any, **named: Any) -> torch.Tensor:
        """A batch's share of a step."""
        loss = super().training_step(*given, **named)  # pyright: ignore[reportAttributeAccessIssue]
        self.run.learn(loss.item())
        return loss

    def _send_telemetry(self) -> None:
        """Nobody is told that a trainer was made."""


def _peer(run: Run) -> Peer:
    if "grpo" in run.recipe.terms and run.recipe.terms["grpo"][0]:
        from distill_dagster.training.trl.rewarded import Rewarded

        return Rewarded(run)
    from distill_dagster.training.trl.preferences import Preferences

    return Preferences(run)
