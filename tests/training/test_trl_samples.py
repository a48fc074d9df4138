"""Rewarded samples through TRL: the built-in trainer's numbers, resuming, verifiers that raise; what TRL must have."""

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trl_runs import MODEL, PAIRS, SAMPLES, Stop, apart, encoded, fresh, lines, pair_rows, start, through, weights

from distill_dagster.config.models import Recipe
from distill_dagster.domains.base import Verdict
from distill_dagster.errors import PluginError

pytestmark = [pytest.mark.needs_torch, pytest.mark.slow]


@pytest.fixture(scope="module")
def covenants():
    """Tokenizer, encoded covenants, and a judge that finds some answers of the finance teacher right."""
    from distill_dagster.domains.registry import discover
    from distill_dagster.models import folder
    from distill_dagster.training.data import Chat, encode
    from distill_dagster.training.rewards import Rewards

    domain = discover().get("finance")
    assert domain.items is not None
    items = list(domain.items("covenant", "gold", 12, 17))
    words = folder.load_tokenizer(MODEL)
    chats = [
        Chat(f"r{at}", ({"role": "user", "content": one.text}, {"role": "assistant", "content": one.answer}))
        for at, one in enumerate(items)
    ]
    known = [
        {"record_id": f"r{at}", "task": "covenant", "facts": dict(one.facts), "answer": None}
        for at, one in enumerate(items)
    ]
    return words, encode(words, chats, 512).examples, Rewards(known, domain, {}, "1")


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The built-in feed's samples are those that TRL made before it."""
    from distill_dagster.training.feeds import rollouts
    from distill_dagster.training.feeds._groups import Sample
    from distill_dagster.training.trl.rewarded import Rewarded

    made: list[Any] = []
    usual = Rewarded.rewards

    def kept(self: Rewarded, prompts: Any, said: Any) -> Any:
        made.append((list(prompts), [list(ids) for ids in said], self))
        return usual(self, prompts, said)

    def again(self: rollouts.Feed, at: int) -> list[Sample]:
        prompts, said, peer = made[at]
        group, found = peer.params.group, []
        for number, (place, ids) in enumerate(zip(prompts, said, strict=True)):
            prompt, record = self.prompts[place]
            ended = ids[-1] in peer.ends
            text = self.setting.tokenizer.decode(ids, skip_special_tokens=True)
            found.append(Sample(number // group, record, list(prompt), ids, text, not ended))
        return found

    monkeypatch.setattr(Rewarded, "rewards", kept)
    monkeypatch.setattr(rollouts.Feed, "_said", again)
    yield made


@pytest.mark.parametrize(
    "more",
    [{}, {"mean": "sequences", "std": False, "kl": 0.05, "sampling_temperature": 1.3}],
    ids=["tokens", "sequences, kl"],
)
def test_a_run_on_samples_agrees_with_the_built_in_one(more, covenants, replayed, tmp_path: Path) -> None:
    """The same samples: rewards, advantages, loss, gradient norm and weights are the built-in trainer's."""
    words, examples, judge = covenants
    recipe = Recipe(
        objective={"grpo": {"weight": 1.0, **SAMPLES, **more}},  # pyright: ignore[reportArgumentType]
        steps=2,
        batch_tokens=1024,
        learning_rate=1e-3,
        warmup_steps=0,
        log_every=1,
    )
    ours, theirs = start(), start()
    told = through("trl", theirs, words, examples, recipe, tmp_path / "theirs", rewards=judge)
    assert len(replayed) == 2 and all(len(said) == 12 for _, said, _ in replayed)
    # TRL learned in two batches of six; the built-in trainer takes all samples of a step at once.
    assert (replayed[0][2].size, replayed[0][2].batches) == (6, 2)
    whole = recipe.model_copy(update={"batch_tokens": 8192})
    through("builtin", ours, words, examples, whole, tmp_path / "ours", rewards=judge)
    found = lines(tmp_path / "theirs")
    assert any(0 < row["equal_groups"] < 1 for row in found) and any(row["loss"] for row in found)
    for one, other in zip(lines(tmp_path / "ours"), found, strict=True):
        names = ["loss", "grpo", "grad_norm", "reward", "right", "undecided", "equal_groups", "lr", "tokens"]
        assert {name: other[name] for name in names} == pytest.approx(
            {name: one[name] for name in names}, rel=2e-3, abs=1e-5
        )
        # Of two batches TRL tells the mean of their means.
        assert "kl" not in more or other["kl"] == pytest.approx(one["kl"], rel=0.1, abs=1e-5)
        assert other["cut"] >= 0 and 1 <= other["answer_length"] <= replayed[0][2].room
    assert apart(start(), ours, theirs) < 2e-2
    assert (told["samples"], told["samplings"], told["undecided"]) == (24, 2, 0)


def test_samples_of_several_steps_resume_where_they_are_used_up(covenants, tmp_path: Path) -> None:
    words, examples, judge = covenants
    recipe = Recipe(
        objective={"grpo": {"weight": 1.0, **SAMPLES, "every": 2, "max_new_tokens": 6}},  # pyright: ignore
        steps=4,
        batch_tokens=1024,
        learning_rate=1e-4,
        checkpoint_every=1,
        log_every=1,
    )
    whole = start()
    told = through("trl", whole, words, examples, recipe, tmp_path / "whole", rewards=judge)
    assert told["samplings"] == 2 and told["samples"] == 24

    def kill(step: int, steps: int, loss: float) -> None:
        if step == 4:
            raise Stop

    with pytest.raises(Stop):
        through("trl", start(), words, examples, recipe, tmp_path / "killed", rewards=judge, progress=kill)
    again = start()
    told = through("trl", again, words, examples, recipe, tmp_path / "killed", rewards=judge)
    # After steps 1 and 3 samples are left, and TRL keeps those in memory alone.
    assert told["resumed_from"] == 2 and told["samplings"] == 2
    assert weights(again) == weights(whole) and lines(tmp_path / "killed") == lines(tmp_path / "whole")


def test_a_verifier_that_always_raises_stops_the_run(covenants, tmp_path: Path) -> None:
    words, examples, judge = covenants
    recipe = Recipe(objective={"grpo": {"weight": 1.0, **SAMPLES, "max_new_tokens": 2}}, steps=1)  # pyright: ignore
    usual = judge.verify

    def broken(task: str, facts: Any, output: str) -> Verdict:
        raise ZeroDivisionError

    judge.verify = broken
    try:
        with pytest.raises(PluginError, match="raised on every one of 12 samples: covenant: ZeroDivisionError"):
            through("trl", start(), words, examples, recipe, tmp_path, rewards=judge)
    finally:
        judge.verify = usual


def test_trl_has_what_is_used_of_it(covenants, tokenizer, chats, tmp_path: Path) -> None:
    """Contract: every argument, override and reported number exists in the TRL that is installed, and is stable."""
    import trl

    from distill_dagster.training.trl import preferences, rewarded
    from distill_dagster.training.trl.run import Run, Watched
    from distill_dagster.training.world import World

    words, covenant, judge = covenants
    pairs = encoded(tokenizer, pair_rows(chats))
    kept = Recipe(objective={"grpo": {"weight": 1.0, **SAMPLES, "kl": 0.1}}, trainer="trl")  # pyright: ignore
    cases = [
        ("DPO", tokenizer, pairs, None, fresh(tokenizer), Recipe(objective={"dpo": 1.0}, **PAIRS)),
        ("GRPO", words, covenant, judge, start(), kept),
    ]
    for name, tokens, given, rewards, model, recipe in cases:
        usual: Any = getattr(trl, f"{name}Trainer")
        assert "experimental" not in usual.__module__
        run = Run(model, tokens, given, recipe, tmp_path / name, rewards, World())
        seen: dict[str, Any] = {}

        class Config(getattr(trl, f"{name}Config")):  # the arguments that are given, held against its fields
            def __init__(self, _seen: dict[str, Any] = seen, **given: Any) -> None:
                _seen.update(given)
                super().__init__(**given)

        monkey = pytest.MonkeyPatch()
        with monkey.context() as patch:
            patch.setattr(trl, f"{name}Config", Config)
            trainer = run.feed.trainer(run._common(), model=model, processing_class=tokens)
        fields = {field.name for field in dataclasses.fields(getattr(trl, f"{name}Config"))}
        assert set(seen) <= fields and {"report_to", "save_strategy", "use_cpu"} <= set(seen)
        assert trainer.args.report_to == [] and trainer.args.device.type == "cpu" and not trainer.args.bf16
        overridden = {
            key for key in (*vars(type(trainer)), *vars(Watched)) if inspect.isfunction(getattr(type(trainer), key))
        }
        assert overridden >= {"training_step", "_send_telemetry", "get_train_dataloader"}
        assert all(hasattr(usual, key) for key in overridden), overridden
        source = inspect.getsource(sys.modules[usual.__module__])
        names = preferences.NAMES if name == "DPO" else rewarded.NAMES
        assert all(f'"{key}"' in source for key in names)
