"""The training loop: the same inputs give the same bytes, and a run that was killed ends as if it had not been."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from distill_dagster.config.models import Recipe
from distill_dagster.errors import TrainingError
from distill_dagster.models.padding import padding
from distill_dagster.records.identity import digest
from distill_dagster.training import determinism, features, memory, metrics, probe, rationale, reference, resuming
from distill_dagster.training.data import Example
from distill_dagster.training.determinism import own_random, settled
from distill_dagster.training.early_stop import Stopping
from distill_dagster.training.feeds.base import Setting
from distill_dagster.training.feeds.base import build as build_feed
from distill_dagster.training.forward import Forward
from distill_dagster.training.frame import Frame, Progress
from distill_dagster.training.objectives.base import Positions, build
from distill_dagster.training.shares import shares
from distill_dagster.training.world import World, device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from distill_dagster.training.rewards import Rewards


class Signals(Protocol):
    """What a teacher says about examples: stored, or asked now.

    Attributes:
        name: Where objectives find it in `Positions.signals`.
        digest: Identity of all it may say, for checkpoints.
    """

    name: str

    @property
    def digest(self) -> str:
        """Identity of all it may say."""
        ...

    def __call__(self, examples: Sequence[Example], positions: Positions) -> Any:
        """What it says about the positions of a batch."""
        ...


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    recipe: Recipe,
    folder: str | Path,
    *,
    validation: Sequence[Example] = (),
    progress: Progress | None = None,
    signals: Sequence[Signals] = (),
    rewards: Rewards | None = None,
    world: World | None = None,
) -> dict[str, Any]:
    """Train `model` in place, with AdamW (Loshchilov & Hutter 2019; no decay on norms and embeddings).

    Args:
        model: A causal language model or a classifier in fp32.
        tokenizer: Its tokenizer, for the padding token.
        examples: Encoded records.
        recipe: Objective terms, steps, batch size, schedule, seed, threads, precision.
        folder: Work folder for `metrics.jsonl` and the last checkpoint. A run with the same model, examples and
            recipe resumes from it; a checkpoint of any other run is removed.
        validation: Encoded records whose loss is measured before and after, and by which `early_stop` stops.
        progress: Called with (step, steps, loss) at every logged step.
        signals: What a teacher says about examples, for objectives that ask for more than text.
        rewards: Judges the student's samples, for objectives that learn from verdicts.
        world: The processes that train together; this one alone, on the recipe's device, by default.

    Returns:
        Summary: steps, loss of the first and last logged steps, tokens, epochs, seconds, tokens a second, parameters.
        With `early_stop` the model has the weights of the lowest validation loss, and the summary says which and why.

    Raises:
        TrainingError: A loss or gradient that is not finite, a batch without any position to learn from, no memory
            left, or `early_stop` without validation records.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    world = world or World(device=device(recipe.device))
    with settled(recipe, world), memory.told(str(path), recipe, (), str(world.device)):
        model.to(world.device)  # pyright: ignore[reportArgumentType]
        determinism.prepare(model, world)
        if not world.first:
            world.wait()  # The first one asks the student before training, and keeps what it says for all.
        for source in signals:
            if hasattr(source, "to"):
                source.to(world.device)  # pyright: ignore[reportAttributeAccessIssue]
        sources = [*signals, *reference.wanted(model, tokenizer, examples, recipe, path)]
        if world.first:
            world.wait()
        own = padding(model, tokenizer)
        fitted = recipe.linear_probe and probe.fit(model, examples, recipe, own, world, str(path))
        run = Run(model, tokenizer, examples, recipe, path, sources, rewards, world)
        summary = run.go(validation, progress)
        if fitted:
            summary["linear_probe"] = fitted
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
        signals: Sequence[Signals] = (),
        rewards: Rewards | None = None,
        world: World | None = None,
    ) -> None:
        super().__init__(model, examples, recipe, folder, world or World(), signals, rewards)
        self.padding = padding(model, tokenizer)
        built = {name: (weight, build(name, params)) for name, (weight, params) in recipe.terms.items()}
        # A term of weight 0 is logged where it costs nothing; a teacher is not asked for it, nor are batches made.
        self.terms = {
            name: (weight, term)
            for name, (weight, term) in built.items()
            if weight or not (getattr(term, "need", None) or getattr(term, "feed", None))
        }
        # Validation records are no pairs or rollouts, and nobody asked a teacher about them: their labels alone count.
        taught = any(getattr(term, "need", None) or hasattr(term, "feed") for _, term in self.terms.values())
        self.judges = {"sft": (1.0, build("sft", {}))} if taught else self.terms
        self.terms = rationale.terms(self.terms, recipe.rationale, examples, build("sft", {}))
        self.forward = Forward(model, recipe.precision, recipe.packing)
        self.prepare(features.bind(self.terms, self.forward, signals, recipe.seed))
        asked = [(name, term) for name, (weight, term) in self.terms.items() if weight]
        if recipe.packing and not self.forward.can_pack(examples, self.padding, recipe.batch_tokens):
            # Mixed lengths would be padded to several times batch_tokens.
            recipe = recipe.model_copy(update={"packing": False})
        self.feed = build_feed(asked, Setting(model, tokenizer, examples, recipe, rewards))
        self.stopping = Stopping(recipe.early_stop) if recipe.early_stop else None

    def go(self, validation: Sequence[Example], progress: Progress | None) -> dict[str, Any]:
        recipe, stopping, self.progress = self.recipe, self.stopping, progress
        if stopping and not validation:
            raise TrainingError(
                str(self.folder),
                "early_stop needs validation records, and there are none.",
                "Give some, or leave it out.",
            )
        if stopping:
            self.fingerprint = resuming.judged_by(self, validation)
        resumed = resuming.resume(self)
        before = None if resumed or not validation else self.loss(validation)
        self.model.train()
        self.start()
        for batches in self._steps():
            with memory.told(self.place, recipe, batches, str(self.world.device)):
                values = self._update(batches)
            self.count(sum(len(example.ids) for batch in batches for example in batch), values)
            looked = self._look(validation)
            if self.to_log or looked:
                self._log(looked)
            if self.to_save:
                resuming.save(self)
        self.model.eval()
        self.world.wait()
        summary = self.summary(resumed, self.forward.way)
        if self.world.device.type == "cuda":
            summary["deterministic"] = not torch.is_deterministic_algorithms_warn_only_enabled()
        summary |= getattr(self.feed, "summary", dict)()
        if recipe.packing:
            summary["packed"] = self.forward.packs
        if self.world.size > 1:
            summary["processes"] = self.world.size
        if stopping:
            summary |= stopping.summary(self.step)
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(stopping.weights[name])
        if validation:
            summary |= {"validation_loss": self.loss(validation), "validation_loss_before": before}
        return summary

    def _steps(self) -> Iterator[list[list[Example]]]:
        """The batches of every step that is left; of none where it has waited long enough, also where a checkpoint
        stood behind the step that decided so."""
        count = self.recipe.accumulate
        stream = self.feed.batches(self.step * count)
        for _ in range(self.recipe.steps - self.step):
            if self.stopping and self.stopping.over:
                return
            yield list(itertools.islice(stream, count))

    def _update(self, batches: list[list[Example]]) -> dict[str, float]:
        """One optimizer step over all its batches, of which this process computes its own; the values of the terms."""
        self.set_rate()
        self.optimizer.zero_grad(set_to_none=True)
        parts = shares({name: objective for name, (_, objective) in self.terms.items()}, batches)
        measured = [name for _, term in self.terms.values() for name in getattr(term, "measures", ())]
        values = dict.fromkeys(("loss", *self.terms, "positions", *measured), 0.0)
        said: dict[int, metrics.Values] = {}
        for number in self.world.own(len(batches)):
            with self._drawn(number):
                said[number] = self._backward(batches[number], parts[number])
        # A GPU is waited for once a step: whatever of it is wanted as a number is read together.
        several = self.world.size > 1
        clipped: metrics.Values = {"grad_norm": self._clip()} if not several and any(said.values()) else {}
        *found, last = metrics.numbers([*said.values(), clipped])
        for number, one in zip(said, found, strict=True):
            own = self._weighed(one, parts[number])
            if not metrics.finite({name: value for name, value in own.items() if name not in measured}):
                raise self.trouble(f"the loss is not finite ({own})", _records(batches[number]))
            for name, value in own.items():
                values[name] += value
        if several:
            self.world.add_gradients(self.parameters.values())
            values = dict(zip(values, self.world.sums(list(values.values())), strict=True))
        positions = int(values.pop("positions"))
        whole = _records(itertools.chain(*batches))
        if not positions:
            raise self.trouble("no position of this batch carries a loss", whole)
        self.learned += positions
        norm = self._clip().item() if several else last["grad_norm"]
        if not math.isfinite(norm):
            raise self.trouble(f"the gradient is not finite (norm {norm})", whole)
        self.optimizer.step()
        return {**values, "grad_norm": norm}

    def _clip(self) -> torch.Tensor:
        """Scale the gradient down to the recipe's largest norm; the norm it had."""
        return torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.grad_clip)

    def _backward(self, chosen: list[Example], part: dict[str, float]) -> metrics.Values:
        """Add the gradient of one batch; its loss, terms and measures, still on the device, and its positions."""
        positions = self._positions(chosen)
        if not len(positions.labels):
            return {}
        terms = {name: (weight, objective(positions)) for name, (weight, objective) in self.terms.items()}
        loss = torch.stack([weight * part[name] * value for name, (weight, value) in terms.items()]).sum()
        loss.backward()
        values: metrics.Values = {"loss": loss, **{name: value for name, (_, value) in terms.items()}}
        for _, term in self.terms.values():
            values |= {key: positions.measures[key] for key in getattr(term, "measures", ())}
        return {**values, "positions": len(positions.labels)}

    def _weighed(self, values: dict[str, float], part: dict[str, float]) -> dict[str, float]:
        """What a batch's values add to those of the step."""
        share = {"loss": 1.0, "positions": 1.0, **part}
        for name, (_, term) in self.terms.items():
            share |= dict.fromkeys(getattr(term, "measures", ()), part[name])
        return {name: share[name] * value for name, value in values.items()}

    @contextmanager
    def _drawn(self, number: int) -> Iterator[None]:
        """Dropout that a step's batch decides, whichever process computes it; a step of one batch draws on."""
        if self.recipe.accumulate == 1:
            yield
            return
        with own_random(self.world):
            torch.manual_seed(int(digest([self.recipe.seed, self.step, number])[:15], 16))
            yield

    def _look(self, validation: Sequence[Example]) -> dict[str, float]:
        """The validation loss, where it is time for it."""
        if self.stopping is None or not self.stopping.due(self.step, self.recipe.steps):
            return {}
        found = self.loss(validation)
        if not math.isfinite(found):
            raise TrainingError(
                self.place, f"the validation loss is {found}.", "Lower training.learning_rate, or look at D_val."
            )
        self.model.train()
        self.stopping.look(self.step, found, self.parameters)
        return {"validation_loss": found}

    def _positions(self, chosen: list[Example]) -> Positions:
        """The positions of a batch that carry a loss, with what a teacher says about them."""
        positions = self.forward(chosen, self.padding)
        if self.signals and len(positions.labels) and torch.is_grad_enabled():
            positions.signals = {source.name: source(chosen, positions) for source in self.signals}
        return positions

    def _log(self, looked: dict[str, float]) -> None:
        means = self.means.take()
        if self.world.first:
            self.write(means, {**looked, **getattr(self.feed, "metrics", dict)()})

    @torch.no_grad()
    def loss(self, examples: Sequence[Example]) -> float:
        """Weighted mean of the whole loss over examples, in order; of the labels' where a teacher says the rest."""
        self.model.eval()
        lengths = [len(example.ids) for example in examples]
        size = max(1, self.recipe.batch_tokens // max(lengths))
        starts, total, weight = range(0, len(examples), size), 0.0, 0.0
        for number in self.world.own(len(starts)):
            positions = self._positions(list(examples[starts[number] : starts[number] + size]))
            if len(positions.labels):
                share = positions.total.item()
                total += share * sum((w * term(positions)).item() for w, term in self.judges.values())
                weight += share
        total, weight = self.world.sums([total, weight])
        return total / weight if weight else math.nan


def _records(examples: Iterable[Example]) -> list[str]:
    return [example.record_id for example in examples]
