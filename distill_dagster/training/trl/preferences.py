"""`dpo`, also with `sft` beside it, through TRL's DPOTrainer: our pairs, in our batches."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distill_dagster.training.data import Example, batches
from distill_dagster.training.feeds.base import Setting
from distill_dagster.training.feeds.pairs import Feed
from distill_dagster.training.objectives.dpo import Objective

if TYPE_CHECKING:
    from distill_dagster.training.trl.run import Run

#: TRL's name of a number: ours.
NAMES = {
    "rewards/margins": "dpo_margin",
    "rewards/accuracies": "dpo_accuracy",
    "logps/chosen": "dpo_chosen_log_prob",
    "logps/rejected": "dpo_rejected_log_prob",
}


class Preferences:
    """The pairs of a run, in the batches that the built-in feed `pairs` makes: whole pairs, by `batch_tokens`.

    Raises:
        ConfigError, TrainingError: As that feed.
    """

    def __init__(self, run: Run) -> None:
        self.run, recipe = run, run.recipe
        feed = Feed(Setting(run.model, run.tokenizer, run.examples, recipe))
        self.pairs = [(run.examples[chosen], run.examples[rejected]) for chosen, rejected in feed.pairs]
        self.longest = max(feed.lengths)
        made = batches(feed.lengths, recipe.batch_tokens, recipe.seed)
        self.order = list(itertools.islice(made, recipe.steps * recipe.accumulate))

    def trainer(self, common: Mapping[str, Any], **given: Any) -> Any:
        """TRL's trainer. It computes what the student before training says of each pair while it is made."""
        from datasets import Dataset
        from torch.utils.data import DataLoader
        from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportPrivateImportUsage]

        from distill_dagster.training.trl.run import Watched

        peer, run = self, self.run
        terms = {name: weight for name, (weight, _) in run.recipe.terms.items() if weight}
        params = Objective.Params(**run.recipe.terms["dpo"][1])
        args = DPOConfig(
            **common,
            loss_type=[params.loss if name == "dpo" else name for name in terms],
            loss_weights=list(terms.values()),
            beta=params.beta,
            gradient_accumulation_steps=run.recipe.accumulate,
            max_length=None,  # nothing is cut: what is too long is an error, or was dropped, before
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=max(1, run.recipe.batch_tokens // self.longest),
        )

        class Trainer(Watched, DPOTrainer):
            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                """The tokens are ours: one chat template, one place where it is applied."""
                return dataset

            def get_train_dataloader(self) -> Any:
                """Our batches, from the run's step on."""
                order: Any = peer.order[run.step * run.recipe.accumulate :]
                data: Any = self.train_dataset
                return DataLoader(data, batch_sampler=order, collate_fn=self.data_collator)

        Trainer.run = run
        return Trainer(args=args, train_dataset=Dataset.from_list([_row(*pair) for pair in self.pairs]), **given)

    def _batches(self, step: int) -> list[Example]:
        size = self.run.recipe.accumulate
        chosen = itertools.chain(*self.order[step * size : (step + 1) * size])
        return [example for number in chosen for example in self.pairs[number]]

    def took(self, step: int) -> tuple[int, int]:
        """Tokens of a step's pairs, and those of their answers."""
        found = self._batches(step)
        return sum(len(one.ids) for one in found), sum(sum(map(bool, one.weights)) for one in found)

    def records(self, step: int) -> list[str]:
        """Records of a step's pairs."""
        return [example.record_id for example in self._batches(step)]

    def row(self, logs: Mapping[str, float], loss: float) -> dict[str, float]:
        """TRL's numbers under our names. It tells no values of single terms: `dpo` is there where it is alone."""
        found = {ours: logs[theirs] for theirs, ours in NAMES.items()}
        terms = {name: weight for name, (weight, _) in self.run.recipe.terms.items() if weight}
        return {"dpo": loss / terms["dpo"], **found} if len(terms) == 1 else found

    def whole_steps(self, step: int) -> bool:
        """A checkpoint may stand after every step."""
        return True

    def summary(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def state(self) -> dict[str, Any]:
        """Nothing: a step alone says which batch comes next."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing."""


def _row(chosen: Example, rejected: Example) -> dict[str, list[int]]:
    """A pair as DPOTrainer's collator takes it."""
    (prompt, better), (_, worse) = _split(chosen), _split(rejected)
    return {"prompt_ids": prompt, "chosen_ids": better, "rejected_ids": worse}


def _split(example: Example) -> tuple[list[int], list[int]]:
    """What comes before the last answer, and the answer with its end token."""
    start = len(example.ids)
    while start > 0 and example.weights[start - 1]:
        start -= 1
    return list(example.ids[:start]), list(example.ids[start:])
