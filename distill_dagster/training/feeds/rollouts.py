"""What the student itself says: every so many steps it answers prompts of the records, as it stands then.

Samples are kept in a buffer with the step they were made at, so a checkpoint holds all that decides which batch comes
next, and a run that was killed goes on as it would have.
"""

from __future__ import annotations

import copy
import itertools
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from distill_dagster.errors import ConfigError, PluginError, TrainingError
from distill_dagster.models.padding import padding
from distill_dagster.training.data import batches
from distill_dagster.training.feeds._groups import Sample, advantages
from distill_dagster.training.feeds.examples import Feed as Records
from distill_dagster.training.own_samples import Plan, Rollout

if TYPE_CHECKING:
    from distill_dagster.training.data import Example
    from distill_dagster.training.feeds.base import Setting

#: Samplings in a row without any group to learn from after which a run says so.
WARN_AFTER = 10


class Feed:
    """Batches of samples, and of records where the plan's share is below 1.

    Raises:
        ConfigError: Two objectives want other samples, or the recipe trains on prompts as well.
        TrainingError: The objective needs rewards and there are none, or no record's answer can be judged.
    """

    def __init__(self, setting: Setting) -> None:
        from distill_dagster.training.forward import Forward

        self.setting, self.recipe = setting, setting.recipe
        self.plan = _plan(setting)
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:
            raise TrainingError(
                "training.objective",
                "a student that learns from its own samples trains in one process, and here are several.",
                "Start it without torchrun.",
            )
        if self.recipe.prompt_loss_weight:
            raise ConfigError(
                "training.prompt_loss_weight",
                "it is above 0, and where samples are learned from the loss is of answers alone.",
                "Set it to 0.",
            )
        self.padding = padding(setting.model, setting.tokenizer)
        self.prompts = _prompts(setting.examples)
        if self.plan.judging is not None:
            self._only_judged()
        answers = max(len(one.ids) - len(prompt) for prompt, one in self.prompts)
        self.room = self.plan.sampling.max_new_tokens or answers
        self.forwards = {"old": Forward(setting.model, self.recipe.precision, self.recipe.packing)}
        if self.plan.judging is not None and self.plan.judging.reference:
            before = copy.deepcopy(setting.model).eval().requires_grad_(False)
            self.forwards["reference"] = Forward(before, self.recipe.precision, self.recipe.packing)
        self.buffer: list[Rollout] = []
        self.deck: list[list[int]] = []
        self.sampled_at: int | None = None
        self.samplings = self.barren = self.longest_barren = 0
        self.window: defaultdict[str, float] = defaultdict(float)
        self.whole: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.generating, self.since = 0.0, time.perf_counter()

    def _only_judged(self) -> None:
        rewards = self.setting.rewards
        if rewards is None:
            raise TrainingError(
                "training.objective",
                "it rewards the student's samples, and nothing judges them here.",
                "Train through a pipeline whose domain has a verifier, or give `train` rewards.",
            )
        self.prompts = [(prompt, one) for prompt, one in self.prompts if one.record_id in rewards]
        if not self.prompts:
            raise TrainingError(
                "training data",
                "no record has facts for the verifier or a gold answer, so no sample can be rewarded.",
                "Use records of the domain's grammar, or map `columns.facts`.",
            )

    # --- batches ----------------------------------------------------------------------------------------------------

    def batches(self, step: int) -> Iterator[list[Example]]:
        """The batches after the first `step` ones; those of one optimizer step are sampled by the same weights."""
        records = Records(self.setting).batches(sum(not self._samples(at) for at in range(step)))
        for at in itertools.count(step):
            self.window["batches"] += 1
            yield self._own(at // self.recipe.accumulate) if self._samples(at) else next(records)

    def _samples(self, at: int) -> bool:
        """Whether a batch is of samples; the seed and its number alone decide."""
        share = self.plan.share
        return share >= 1 or (share > 0 and random.Random(f"{self.recipe.seed}/whose/{at}").random() < share)

    def _own(self, at: int) -> list[Example]:
        """A batch of samples for the optimizer step after `at` of them."""
        oldest = self.plan.sampling.max_age
        fresh = [one for one in self.buffer if oldest is None or at - one.made < oldest]
        if len(fresh) < len(self.buffer):
            self.buffer, self.deck = fresh, []
        if self.sampled_at is None or at - self.sampled_at >= self.plan.sampling.every or not self.buffer:
            self._sample(at)
        if not self.deck:
            self.deck = self._dealt(at)
        chosen = [self.buffer[index] for index in self.deck.pop(0)]
        self.window["own"] += 1
        self.window["age"] += sum(at - one.made for one in chosen) / len(chosen)
        return list(chosen)

    def _dealt(self, at: int) -> list[list[int]]:
        """Every sample of the buffer once, in batches."""
        lengths = [len(one.ids) for one in self.buffer]
        seed = random.Random(f"{self.recipe.seed}/deal/{at}").getrandbits(62)
        dealt, left = [], len(lengths)
        for batch in batches(lengths, self.recipe.batch_tokens, seed, self.recipe.packing):
            dealt.append(batch)
            left -= len(batch)
            if not left:
                break
        return dealt

    # --- sampling ---------------------------------------------------------------------------------------------------

    def _sample(self, at: int) -> None:
        """Put new samples of the student as it stands into the buffer."""
        began = time.perf_counter()
        samples = self._said(at)
        new = self._learnable(samples, at)
        if new and self.plan.judging is not None:
            new = self._scored(new)
        useful = new if any(one.advantage for one in new) or self.plan.judging is None else []
        self.barren = 0 if useful else self.barren + 1
        self.longest_barren = max(self.barren, self.longest_barren)
        earlier = self.buffer if self.plan.sampling.buffer else []
        # A step needs a batch: where nothing else is there, one without a gradient is learned from.
        kept = useful or (new if not earlier or self._keeps_equal else [])
        self.buffer, self.deck = (earlier + kept)[-self.plan.buffer :], []
        self.sampled_at, self.samplings = at, self.samplings + 1
        self.generating += time.perf_counter() - began

    @property
    def _keeps_equal(self) -> bool:
        return self.plan.judging is not None and self.plan.judging.keep_equal

    def _said(self, at: int) -> list[Sample]:
        """`group` answers to each of the next prompts."""
        import torch

        from distill_dagster.models.generation import Generator, Row

        model, seed = self.setting.model, self.recipe.seed
        count = min(self.plan.sampling.prompts, len(self.prompts))
        rows = []
        for number in range(self.samplings * count, (self.samplings + 1) * count):
            epoch, place = divmod(number, len(self.prompts))
            order = list(range(len(self.prompts)))
            random.Random(f"{seed}/prompts/{epoch}").shuffle(order)
            prompt, _ = self.prompts[order[place]]
            for sample in range(self.plan.group):
                own = random.Random(f"{seed}/sample/{number}/{sample}/{at}")
                row = Row(len(rows), prompt, 0, self.plan.sampling.sampling_temperature, 1.0, (), own)
                rows.append((row, order[place]))
        training = model.training
        model.eval()
        with torch.no_grad():
            generator = Generator(model, self.setting.tokenizer, threads=self.recipe.threads)
            for row, _ in rows:
                room = min(generator.context, self.recipe.max_length, self.recipe.batch_tokens) - len(row.prompt)
                row.limit = min(self.room, room)
            done = list(generator.run(row for row, _ in rows if row.limit > 0))
        model.train(training)
        if not done:
            raise TrainingError(
                "training data", "no prompt leaves room for an answer.", "Raise training.max_length or batch_tokens."
            )
        about = {row.index: place for row, place in rows}
        done.sort(key=lambda row: row.index)
        self.window["samples"] += len(done)
        self.window["length"] += sum(len(row.said) for row in done)
        self.window["cut"] += sum(row.finish == "length" for row in done)
        self.whole["samples"] += len(done)
        return [
            Sample(
                row.index // self.plan.group,
                self.prompts[about[row.index]][1],
                row.prompt,
                row.said,
                row.text or "",
                row.finish == "length",
            )
            for row in done
        ]

    def _learnable(self, samples: Sequence[Sample], at: int) -> list[Rollout]:
        """Samples with their advantages; all where nobody judges, else those whose group is of different rewards."""
        if self.plan.judging is None:
            return [one.rollout(at) for one in samples]
        judging, rewards = self.plan.judging, self.setting.rewards
        assert rewards is not None
        judged: list[tuple[Sample, float]] = []
        for one in samples:
            verdict = rewards(one.record.record_id, one.text)
            if verdict.failure is not None:
                self.failures[verdict.failure] += 1
                continue
            self.window["judged"] += 1
            self.window["undecided"] += verdict.right is None
            self.whole["undecided"] += verdict.right is None
            self.window["right"] += verdict.right or 0.0
            value = (verdict.right or 0.0) + judging.well_formed * verdict.well_formed - judging.cut * one.cut
            self.window["reward"] += value
            judged.append((one, value))
        if not judged:
            failed = ", ".join(f"{name} ({count})" for name, count in self.failures.most_common(3))
            raise PluginError(
                "the domain's verifier",
                f"it raised on every one of {len(samples)} samples: {failed}.",
                "A verifier returns Verdict(None) where it cannot tell; mend it in the domain plugin.",
            )
        found = advantages([one.group for one, _ in judged], [value for _, value in judged], judging.std)
        groups = {one.group for one, _ in judged}
        different = {one.group for (one, _), own in zip(judged, found, strict=True) if own}
        for name, count in (("groups", len(groups)), ("equal", len(groups - different))):
            self.window[name] += count
            self.whole[name] += count
        wanted = groups if judging.keep_equal or not different else different
        return [
            one.rollout(at, own, judging.sequences)
            for (one, _), own in zip(judged, found, strict=True)
            if one.group in wanted
        ]

    def _scored(self, rollouts: list[Rollout]) -> list[Rollout]:
        """Samples with the log-probabilities of their tokens, now and before training."""
        import torch

        model, temperature = self.setting.model, self.plan.sampling.sampling_temperature
        training = model.training
        model.eval()
        lengths = [len(one.ids) for one in rollouts]
        size = max(1, self.recipe.batch_tokens // max(lengths))
        known: dict[str, list[tuple[float, ...]]] = {name: [] for name in self.forwards}
        with torch.no_grad():
            for start in range(0, len(rollouts), size):
                batch: list[Any] = rollouts[start : start + size]
                for name, forward in self.forwards.items():
                    said = forward(batch, self.padding)
                    every = (said.logits / temperature).log_softmax(-1)
                    values = every.gather(1, said.labels[:, None])[:, 0].tolist()
                    ends = list(itertools.accumulate(sum(map(bool, one.weights)) for one in batch))
                    parts = zip([0, *ends], ends, strict=False)
                    known[name] += [tuple(values[begin:end]) for begin, end in parts]
        model.train(training)
        return [
            Rollout(**{**vars(one), **{name: known[name][place] for name in known}})
            for place, one in enumerate(rollouts)
        ]

    # --- what a run tells of it, and a checkpoint holds --------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """What happened since this was last asked: shares and means of samples, and the share of the time they took."""
        one, now = self.window, time.perf_counter()
        found = {"generation_share": round(self.generating / max(now - self.since, 1e-9), 4)}
        if one["batches"] and 0 < self.plan.share < 1:
            found["own_batches"] = one["own"] / one["batches"]
        if one["own"]:
            found["age"] = one["age"] / one["own"]
        if one["samples"]:
            found |= {"answer_length": one["length"] / one["samples"], "cut": one["cut"] / one["samples"]}
        if one["judged"]:
            found |= {name: one[name] / one["judged"] for name in ("reward", "right", "undecided")}
            found["equal_groups"] = one["equal"] / one["groups"]
        self.window.clear()
        self.generating, self.since = 0.0, now
        return found

    def summary(self) -> dict[str, Any]:
        """What a whole run was like, with `warnings` where something is amiss."""
        found: dict[str, Any] = {"samplings": self.samplings, "samples": self.whole["samples"]}
        warnings = []
        if self.plan.judging is not None:
            found |= {name: self.whole[name] for name in ("groups", "equal", "undecided")}
            found["longest_without_difference"] = self.longest_barren
        if self.longest_barren >= WARN_AFTER:
            warnings.append(
                f"{self.longest_barren} samplings in a row had no group whose rewards differ, so nothing was learned: "
                "start from a student that is sometimes right, raise `group`, or reward `well_formed` answers"
            )
        if self.failures:
            found["verifier_failures"] = dict(self.failures)
            warnings.append(
                f"the verifier raised on {sum(self.failures.values())} of {self.whole['samples']} samples, which were "
                "left out"
            )
        return {**found, **({"warnings": warnings} if warnings else {})}

    def state(self) -> dict[str, Any]:
        """Buffer, deck and counts."""
        return {
            "buffer": [asdict(one) for one in self.buffer],
            "deck": self.deck,
            "sampled_at": self.sampled_at,
            "counts": [self.samplings, self.barren, self.longest_barren],
            **{name: dict(getattr(self, name)) for name in ("window", "whole", "failures")},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        lists = ("old", "reference")
        self.buffer = [Rollout(**{**one, **{name: tuple(one[name]) for name in lists}}) for one in state["buffer"]]
        self.deck, self.sampled_at = state["deck"], state["sampled_at"]
        self.samplings, self.barren, self.longest_barren = state["counts"]
        self.window = defaultdict(float, state["window"])
        self.whole, self.failures = Counter(state["whole"]), Counter(state["failures"])


def _plan(setting: Setting) -> Plan:
    """The one plan of the recipe's objectives."""
    from distill_dagster.training.objectives.base import build

    plans = {
        name: objective.plan
        for name, (weight, params) in setting.recipe.terms.items()
        if weight and getattr(objective := build(name, params), "feed", None) == "rollouts"
    }
    if len(set(plans.values())) > 1:
        raise ConfigError(
            "training.objective",
            f"{' and '.join(map(repr, plans))} want different samples.",
            "Train one after the other, the second student starting from the first.",
        )
    return next(iter(plans.values()))


def _prompts(examples: Sequence[Example]) -> list[tuple[list[int], Example]]:
    """What comes before the last answer of each record, each prompt once."""
    found: dict[tuple[int, ...], Example] = {}
    for one in examples:
        start = len(one.ids)
        while start > 0 and not one.weights[start - 1]:
            start -= 1
        while start > 0 and one.weights[start - 1]:
            start -= 1
        if start:
            found.setdefault(tuple(one.ids[:start]), one)
    if not found:
        raise TrainingError(
            "training data", "no record has a prompt to answer.", "Give conversations that end with an answer."
        )
    return [(list(ids), one) for ids, one in found.items()]
