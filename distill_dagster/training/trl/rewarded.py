"""`grpo` through TRL's GRPOTrainer: our prompts in our order, rewarded by the domain's verifier."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill_dagster.errors import PluginError, TrainingError
from distill_dagster.models import folder as folders
from distill_dagster.models.generation import text_after
from distill_dagster.training.feeds.base import Setting
from distill_dagster.training.feeds.rollouts import Feed
from distill_dagster.training.objectives.grpo import Objective

if TYPE_CHECKING:
    from distill_dagster.training.trl.run import Run

#: TRL's name of a number: ours.
NAMES = {"entropy": "entropy", "clip_ratio/region_mean": "clipped", "kl": "kl", "frac_reward_zero_std": "equal_groups"}


class Rewarded:
    """Prompts of a run, and the verdicts on what the student says to them.

    A sampling answers `prompts` prompts `group` times each; `every` optimizer steps share these samples evenly, each in
    as few batches of one size as `batch_tokens` allows.

    Raises:
        ConfigError, TrainingError: As the built-in feed `rollouts`; or not one sample fits a batch.
    """

    def __init__(self, run: Run) -> None:
        self.run, recipe = run, run.recipe
        _, params = recipe.terms["grpo"]
        self.params = Objective.Params(**params)
        # The feed finds prompts that can be judged, and their room; the student before training is TRL's to keep.
        alone: Any = {"grpo": {**params, "kl": 0.0}}
        feed = Feed(
            Setting(run.model, run.tokenizer, run.examples, recipe.model_copy(update={"objective": alone}), run.rewards)
        )
        self.prompts, self.ends = feed.prompts, {int(run.tokenizer.eos_token_id)}  # pyright: ignore
        ends = getattr(run.model.generation_config, "eos_token_id", None)
        self.ends |= set(ends if isinstance(ends, list) else [] if ends is None else [ends])
        longest = max(len(prompt) for prompt, _ in self.prompts)
        context = min(folders.context_length(run.model), recipe.max_length, recipe.batch_tokens)
        self.room = min(feed.room, context - longest)
        if self.room < 1:
            reason = f"the longest prompt has {longest} tokens, which leaves no room for an answer."
            raise TrainingError("training data", reason, "Raise training.max_length or batch_tokens.")
        samples = self.params.prompts * self.params.group // self.params.every
        fit = recipe.batch_tokens // (longest + self.room)
        self.size = max(one for one in range(1, fit + 1) if samples % one == 0)
        self.batches = samples // self.size
        self.window: defaultdict[str, float] = defaultdict(float)
        self.whole: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.sampled = (0, 0)

    def trainer(self, common: Mapping[str, Any], **given: Any) -> Any:
        """TRL's trainer."""
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportPrivateImportUsage]

        from distill_dagster.training.trl.run import Watched

        peer, run, params = self, self.run, self.params
        if params.kl:
            # TRL loads the student before training from a folder.
            start = folders.save(run.model, run.tokenizer, run.folder / "start")
            run.model.config._name_or_path = str(start)
        args = GRPOConfig(
            **common,
            per_device_train_batch_size=self.size,
            gradient_accumulation_steps=self.batches,
            steps_per_generation=self.batches * params.every,
            num_generations=params.group,
            max_completion_length=self.room,
            temperature=params.sampling_temperature,
            epsilon=params.clip_low,
            epsilon_high=params.clip_high,
            beta=params.kl,
            use_bias_correction_kl=False,
            scale_rewards="group" if params.std else "none",
            loss_type="dapo" if params.mean == "tokens" else "grpo",
            shuffle_dataset=False,
            use_vllm=False,
        )

        def verdict(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float | None]:
            return [*peer.rewards([int(prompt) for prompt in prompts], completion_ids)]

        class Trainer(Watched, GRPOTrainer):
            def _tokenize_prompts(self, prompts: list[Any]) -> Any:
                """The tokens are ours: one chat template, one place where it is applied."""
                return [list(peer.prompts[int(prompt)][0]) for prompt in prompts], None, {}

            def get_train_dataloader(self) -> Any:
                """Our prompts, from the run's step on."""
                self.train_dataset = Dataset.from_list([{"prompt": str(at)} for at in peer.asked()])
                return super().get_train_dataloader()

        Trainer.run = run
        return Trainer(args=args, reward_funcs=verdict, train_dataset=Dataset.from_list([{"prompt": "0"}]), **given)

    def asked(self) -> list[int]:
        """Numbers of the prompts of all samplings that are left: each prompt once an epoch, by the seed."""
        run, count = self.run, self.params.prompts
        done, whole = run.step // self.params.every, math.ceil(run.recipe.steps / self.params.every)
        orders: dict[int, list[int]] = {}
        found = []
        for number in range(done * count, whole * count):
            epoch, place = divmod(number, len(self.prompts))
            if epoch not in orders:
                orders[epoch] = list(range(len(self.prompts)))
                random.Random(f"{run.recipe.seed}/prompts/{epoch}").shuffle(orders[epoch])
            found.append(orders[epoch][place])
        return found

    def rewards(self, prompts: Sequence[int], said: Sequence[list[int]]) -> list[float]:
        """The reward of each sample; one on which the verifier raised counts as wrong.

        Raises:
            PluginError: It raised on every one.
        """
        judge, params, found, failed = self.run.rewards, self.params, [], 0
        assert judge is not None
        for at, ids in zip(prompts, said, strict=True):
            prompt, record = self.prompts[at]
            ended = bool(ids) and ids[-1] in self.ends
            verdict = judge(record.record_id, text_after(self.run.tokenizer, prompt, ids[:-1] if ended else ids))
            self.window["samples"] += 1
            self.window["length"] += len(ids)
            self.window["cut"] += not ended
            if verdict.failure is not None:
                self.failures[verdict.failure] += 1
                failed += 1
            self.window["undecided"] += verdict.right is None
            self.whole["undecided"] += verdict.right is None
            self.window["right"] += verdict.right or 0.0
            value = (verdict.right or 0.0) + params.well_formed * verdict.well_formed - params.cut * (not ended)
            self.window["reward"] += value
            found.append(value)
        if failed == len(found):
            raise PluginError(
                "the domain's verifier",
                f"it raised on every one of {failed} samples: {self.failures.most_common(1)[0][0]}.",
                "A verifier returns Verdict(None) where it cannot tell; mend it in the domain plugin.",
            )
        self.whole["samplings"] += 1
        self.whole["samples"] += len(found)
        answers = sum(map(len, said))
        self.sampled = answers + sum(len(self.prompts[at][0]) for at in prompts), answers
        return found

    def took(self, step: int) -> tuple[int, int]:
        """A step's share of the tokens that were sampled last, and of those of the answers."""
        share, every = step % self.params.every, self.params.every
        tokens, answers = (count * (share + 1) // every - count * share // every for count in self.sampled)
        return tokens, answers

    def records(self, step: int) -> list[str]:
        """Nothing: samples are shuffled before they are learned from."""
        return []

    def row(self, logs: Mapping[str, float], loss: float) -> dict[str, float]:
        """TRL's numbers under our names, and what the verdicts were since the last row."""
        found = {ours: logs[theirs] for theirs, ours in NAMES.items() if logs.get(theirs) is not None}
        one = self.window
        if one["samples"]:
            names = {"answer_length": "length", **{name: name for name in ("cut", "reward", "right", "undecided")}}
            found |= {name: one[key] / one["samples"] for name, key in names.items()}
        self.window.clear()
        return {"grpo": loss, **found}

    def whole_steps(self, step: int) -> bool:
        """A checkpoint stands where the samples are used up: TRL keeps them in memory alone."""
        return step % self.params.every == 0

    def summary(self) -> dict[str, Any]:
        """Counts of the samples, with `warnings` where the verifier raised."""
        found: dict[str, Any] = {name: self.whole[name] for name in ("samplings", "samples", "undecided")}
        if self.failures:
            found["verifier_failures"] = dict(self.failures)
            count = sum(self.failures.values())
            found["warnings"] = [f"the verifier raised on {count} of {found['samples']} samples, which count as wrong"]
        return found

    def state(self) -> dict[str, Any]:
        """Counts."""
        return {"whole": dict(self.whole), "failures": dict(self.failures)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.whole, self.failures = Counter(state["whole"]), Counter(state["failures"])
