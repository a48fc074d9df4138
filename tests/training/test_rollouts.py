"""What the student itself says as training data: sampled, judged, kept, and the same again after a kill."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from distill_dagster.config.models import Recipe
from distill_dagster.domains.base import Domain, Task
from distill_dagster.domains.base import Verdict as Opinion
from distill_dagster.errors import ConfigError, PluginError, TrainingError
from distill_dagster.training.own_samples import Rollout
from distill_dagster.training.rewards import Rewards

pytestmark = pytest.mark.needs_torch

BASE: dict[str, Any] = {
    "batch_tokens": 1024,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "checkpoint_every": 4,
    "log_every": 2,
}
GRPO: dict[str, Any] = {"prompts": 4, "group": 4, "max_new_tokens": 6}
VOLATILE = ("elapsed", "tokens_per_second", "generation_share")


def recipe(steps: int = 10, plan: dict[str, Any] | None = None, name: str = "grpo", **more: Any) -> Recipe:
    return Recipe(
        objective={name: {**(GRPO if name == "grpo" else {}), **(plan or {})}}, steps=steps, **{**BASE, **more}
    )


def domain(verify=None) -> Domain:
    task = Task("turn", "verified", "", "")
    return Domain("toy", "", "", (), (task,), (), verify=verify or (lambda task, facts, output: Opinion(even(output))))


def even(text: str) -> bool:
    """A rule that a fresh model follows now and then, and more often once it is rewarded for it."""
    return len(text) % 2 == 0


def rewards(chats, verify=None, facts=None, answer=None) -> Rewards:
    facts = {"known": True} if facts is None else facts
    rows = [{"record_id": chat.record_id, "task": "turn", "facts": facts, "answer": answer} for chat in chats]
    return Rewards(rows, domain(verify), {}, "1")


def fresh(tokenizer):
    """A nano model whose samples differ."""
    import torch

    from distill_dagster.training import presets

    model = presets.build("nano", tokenizer, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    return model


def weights(model) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


def lines(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name not in VOLATILE} for row in rows]


def feed(tokenizer, examples, own: Recipe, judge=None, model=None):
    from distill_dagster.training.feeds.base import Setting
    from distill_dagster.training.feeds.rollouts import Feed

    return Feed(Setting(model or fresh(tokenizer), tokenizer, examples, own, judge))


# --- sampling -------------------------------------------------------------------------------------------------------


def test_a_batch_is_what_the_student_said(tokenizer, examples, chats) -> None:
    import torch

    model, judged = fresh(tokenizer), []

    def verify(task, facts, output):
        judged.append(even(output))
        return Opinion(even(output))

    made = feed(tokenizer, examples, recipe(plan={"equal_groups": "keep", "kl": 0.1}), rewards(chats, verify), model)
    batch = [one for one in next(made.batches(0)) if isinstance(one, Rollout)]
    assert len(batch) == 16
    prompts = {one.record_id: one.ids[: one.weights.index(1.0)] for one in examples}
    for one in batch:
        prompt = prompts[one.record_id]
        said = one.ids[len(prompt) :]
        assert one.ids[: len(prompt)] == prompt and 1 <= len(said) <= 6
        assert one.weights == [0.0] * len(prompt) + [1.0] * len(said)
        assert said[-1] == tokenizer.eos_token_id or len(said) == 6
        with torch.no_grad():
            logits = model(torch.tensor([one.ids])).logits[0].log_softmax(-1)
        exact = [float(logits[at - 1, one.ids[at]]) for at in range(len(prompt), len(one.ids))]
        assert one.old == pytest.approx(exact, abs=1e-4) and one.reference == one.old
    assert Counter(one.record_id for one in batch) == dict.fromkeys({one.record_id for one in batch}, 4)
    said = made.metrics()
    assert said["right"] == said["reward"] == sum(judged) / 16 and len(judged) == 16
    assert said["answer_length"] == sum(len(one.old) for one in batch) / 16 and said["age"] == 0


def test_equal_records_are_one_prompt_and_every_prompt_has_its_turn(tokenizer, examples, chats) -> None:
    made = feed(tokenizer, [*examples[:6], *examples[:6]], recipe(plan={"equal_groups": "keep"}), rewards(chats))
    assert len(made.prompts) == len({tuple(prompt) for prompt, _ in made.prompts}) <= 6
    batches = made.batches(0)
    seen: Counter[str] = Counter()
    for _ in range(3):
        seen.update(one.record_id for one in next(batches))
    assert len(seen) == len(made.prompts) and sum(seen.values()) == 48
    assert max(seen.values()) - min(seen.values()) <= 4


def test_the_same_samples_are_learned_from_several_times(tokenizer, examples, chats) -> None:
    plan = {"every": 3, "equal_groups": "keep"}
    made = feed(tokenizer, examples, recipe(plan=plan, batch_tokens=160), rewards(chats))
    batches = made.batches(0)
    first = [next(batches) for _ in range(3)]
    assert made.samplings == 1 and {one.made for batch in first for one in batch} == {0}
    assert all(max(len(one.ids) for one in batch) * len(batch) <= 160 for batch in first)
    assert {one.made for one in next(batches)} == {3} and made.samplings == 2


def test_the_batches_of_one_step_are_sampled_by_the_same_weights(tokenizer, examples, chats) -> None:
    plan = {"every": 2, "equal_groups": "keep"}
    made = feed(tokenizer, examples, recipe(plan=plan, batch_tokens=160, accumulate=2), rewards(chats))
    batches = made.batches(0)
    assert [{one.made for one in next(batches)} for _ in range(8)] == [{0}] * 4 + [{2}] * 4  # pyright: ignore
    assert made.samplings == 2


def test_several_processes_are_refused(tokenizer, examples, chats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="one process"):
        feed(tokenizer, examples, recipe(), rewards(chats))


def test_a_buffer_keeps_the_newest_and_forgets_the_old(tokenizer, examples, chats) -> None:
    plan = {"every": 2, "buffer": 40, "max_age": 5, "equal_groups": "keep"}
    made = feed(tokenizer, examples, recipe(plan=plan, batch_tokens=2048), rewards(chats))
    batches = made.batches(0)
    ages = []
    for at in range(12):
        batch = next(batches)
        ages.append(Counter(at - one.made for one in batch))  # pyright: ignore
    assert [sum(count.values()) for count in ages[:6]] == [16, 16, 32, 32, 40, 32], (
        "at step 5 those of step 0 are too old"
    )
    assert max(age for count in ages for age in count) == 4
    assert made.metrics()["age"] > 0


# --- judging --------------------------------------------------------------------------------------------------------


def test_groups_of_equal_rewards_are_counted_and_left_out(tokenizer, examples, chats) -> None:
    made = feed(tokenizer, examples, recipe(plan={"prompts": 12, "group": 2}), rewards(chats))
    batches = made.batches(0)
    batch = next(batches)
    kept = Counter(one.record_id for one in batch)
    said = made.metrics()
    assert 0 < said["equal_groups"] < 1
    assert len(kept) == round(12 * (1 - said["equal_groups"])) and set(kept.values()) == {2}
    assert all(one.advantage for one in batch)  # pyright: ignore
    assert {one.made for one in next(batches)} == {1}, "without a buffer nothing is left of the last time"  # pyright: ignore


def test_nothing_but_equal_rewards_is_said_aloud(tokenizer, examples, chats, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import train

    model = fresh(tokenizer)
    judge = rewards(chats, lambda task, facts, output: Opinion(False))
    own = recipe(12, {"prompts": 2, "group": 2, "max_new_tokens": 3}, weight_decay=0.0)
    before = weights(model)
    summary = train(model, tokenizer, examples, own, tmp_path, rewards=judge)
    assert weights(model) == before, "no difference, no gradient"
    assert summary["equal"] == summary["groups"] == 24 and summary["longest_without_difference"] == 12
    (warning,) = summary["warnings"]
    assert "12 samplings in a row" in warning and "`group`" in warning
    assert all(row["equal_groups"] == 1 and row["grad_norm"] == 0 for row in lines(tmp_path))


def test_a_verifier_that_raises_is_a_named_failure(tokenizer, examples, chats) -> None:
    def verify(task, facts, output):
        if len(output) > 3:
            raise KeyError("amount")
        return Opinion(even(output))

    made = feed(tokenizer, examples, recipe(plan={"equal_groups": "keep"}), rewards(chats, verify))
    batch = next(made.batches(0))
    failed = made.summary()["verifier_failures"]["turn: KeyError"]
    assert 0 < failed == 16 - len(batch)
    assert "left out" in made.summary()["warnings"][0]

    def always(task, facts, output):
        raise ValueError("no")

    with pytest.raises(PluginError, match=r"every one of 16 samples: turn: ValueError \(16\)"):
        next(feed(tokenizer, examples, recipe(), rewards(chats, always)).batches(0))


def test_what_decides_a_verdict() -> None:
    judged: list[tuple] = []

    def verify(task, facts, output):
        judged.append((task, facts, output))
        return Opinion({"good": True, "bad": False}.get(output))

    rows = [
        {"record_id": "both", "task": "turn", "facts": {"n": 1}, "answer": "Fair  enough"},
        {"record_id": "facts", "task": "turn", "facts": {"n": 2}, "answer": None},
        {"record_id": "gold", "task": "pick", "facts": {}, "answer": "loan_closure"},
    ]
    judge = Rewards(rows, domain(verify), {"pick": ("loan_closure", "card")}, "1")
    assert [judge("both", text).right for text in ("good", "bad", "fair enough", "other")] == [1, 0, 1, 0]
    assert [judge("facts", text).right for text in ("good", "bad", "fair")] == [1, 0, None]
    assert judged[-1] == ("turn", {"n": 2}, "fair")
    said = judge("gold", " Loan closure. ")
    assert (said.right, said.well_formed, len(judged)) == (1, True, 7), "no facts, no question to the verifier"
    assert (judge("gold", "none").right, judge("gold", "none").well_formed) == (0, False)
    assert judge("facts", " ").well_formed is False
    assert "both" in judge and "other" not in judge
    other = Rewards(rows, domain(verify), {}, "2")
    assert judge.digest != other.digest
    with pytest.raises(TrainingError, match="domain mute: it has no verifier"):
        Rewards(rows, Domain("mute", "", "", (), (), ()), {}, "1")


def test_form_and_length_may_count(tokenizer, examples, chats) -> None:
    plan = {"well_formed": 0.25, "cut": 0.5, "equal_groups": "keep"}
    made = feed(tokenizer, examples, recipe(plan=plan), rewards(chats))
    next(made.batches(0))
    said = made.metrics()
    assert said["reward"] == pytest.approx(said["right"] + 0.25 * 1.0 - 0.5 * said["cut"], abs=0.25 / 8)
    assert said["cut"] > 0


@pytest.mark.parametrize(
    ("change", "judge", "error", "words"),
    [
        ({"prompt_loss_weight": 0.1}, True, ConfigError, "prompt_loss_weight"),
        ({}, False, TrainingError, "nothing judges"),
        ({"objective": {"grpo": 1.0, "sft": 1.0}}, True, ConfigError, "one kind of batch"),
        ({"objective": {"grpo": 1.0, "gkd": 1.0}}, True, ConfigError, "different samples"),
        ({"objective": {"gkd": {"on_policy": 1.5}}}, True, ConfigError, "on_policy.*less than or equal to 1"),
        ({"objective": {"grpo": {"group": 1}}}, True, ConfigError, "group"),
    ],
)
def test_what_cannot_be_is_refused(tokenizer, examples, chats, tmp_path, change, judge, error, words) -> None:
    from distill_dagster.training.trainer import train

    own = recipe().model_copy(update=change)
    if "objective" in change:
        own = Recipe(objective=change["objective"], **BASE)
    with pytest.raises(error, match=words):
        train(fresh(tokenizer), tokenizer, examples, own, tmp_path, rewards=rewards(chats) if judge else None)


def test_records_that_nobody_can_judge(tokenizer, examples, chats) -> None:
    with pytest.raises(TrainingError, match="no record has facts"):
        feed(tokenizer, examples, recipe(), rewards([]))
    only = feed(tokenizer, examples, recipe(plan={"equal_groups": "keep"}), rewards(chats[:3]))
    assert {one.record_id for one in next(only.batches(0))} <= {"r0", "r1", "r2"}


# --- runs -----------------------------------------------------------------------------------------------------------


class Stop(Exception):
    """Stands for a kill."""


PLANS = {
    "grpo": {"every": 2, "buffer": 32, "kl": 0.05, "mean": "sequences"},
    "gkd": {"prompts": 6, "on_policy": 0.6, "every": 3, "buffer": 12, "max_new_tokens": 5, "max_age": 8},
}


@pytest.fixture(scope="module")
def teacher(tokenizer, tmp_path_factory):
    from distill_dagster.models import folder
    from distill_dagster.training import presets
    from distill_dagster.training.signals.live import LiveTeacher

    path = folder.save(presets.build("micro", tokenizer, 9), tokenizer, tmp_path_factory.mktemp("teacher") / "model")
    return LiveTeacher(path, tokenizer)


def run(tokenizer, examples, chats, teacher, folder: Path, name: str, **more: Any):
    from distill_dagster.training.trainer import train

    model = fresh(tokenizer)
    given: dict[str, Any] = {"rewards": rewards(chats)} if name == "grpo" else {"signals": [teacher]}
    own = more.pop("own", None) or recipe(10, PLANS[name], name)
    return train(model, tokenizer, examples, own, folder, **given, **more), weights(model), lines(folder)


@pytest.mark.parametrize("name", ["grpo", "gkd"])
def test_a_resumed_run_ends_like_an_undisturbed_one(
    tokenizer, examples, chats, teacher, tmp_path: Path, name: str
) -> None:
    def kill(step: int, steps: int, loss: float) -> None:
        if step == 6:
            raise Stop

    whole, model, curve = run(tokenizer, examples, chats, teacher, tmp_path / "whole", name)
    with pytest.raises(Stop):
        run(tokenizer, examples, chats, teacher, tmp_path / "killed", name, progress=kill)
    summary, again, resumed = run(tokenizer, examples, chats, teacher, tmp_path / "killed", name)
    assert summary["resumed_from"] == 4 and again == model and resumed == curve
    for key in ("loss", "tokens", "samplings", "samples"):
        assert summary[key] == whole[key]
    wanted = {
        "grpo": {"entropy", "clipped", "kl", "kl_sampled", "reward", "right", "equal_groups"},
        "gkd": {"own_batches"},
    }
    assert wanted[name] | {"answer_length", "age", "cut"} <= set(curve[-1])
    state = json.loads(next((tmp_path / "killed").glob("step-*/state.json")).read_text())
    assert state["feed"]["buffer"] and len(state["feed"]["buffer"]) <= PLANS[name]["buffer"]


def test_other_rewards_are_another_run(tokenizer, examples, chats, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import train

    own = recipe(8, PLANS["grpo"])
    train(fresh(tokenizer), tokenizer, examples, own, tmp_path, rewards=rewards(chats))
    changed = Rewards(list(rewards(chats).rows.values()), domain(), {}, "2")
    assert train(fresh(tokenizer), tokenizer, examples, own, tmp_path, rewards=changed)["resumed_from"] == 0
    assert train(fresh(tokenizer), tokenizer, examples, own, tmp_path, rewards=changed)["resumed_from"] == 4


def test_without_own_samples_gkd_is_the_divergence(tokenizer, examples, chats, teacher, tmp_path: Path) -> None:
    same = {"kind": "jsd", "beta": 0.3, "temperature": 1.5, "k": 8}
    plain = recipe(8, {**same, "signals": "live"}, "divergence")
    own = recipe(8, {**same, "on_policy": 0.0}, "gkd")
    _, expected, curve = run(tokenizer, examples, chats, teacher, tmp_path / "plain", "gkd", own=plain)
    summary, found, rows = run(tokenizer, examples, chats, teacher, tmp_path / "own", "gkd", own=own)
    assert found == expected and summary["samplings"] == 0
    assert [row["gkd"] for row in rows] == [row["divergence"] for row in curve]


def test_samples_and_records_may_have_divergences_of_their_own(
    tokenizer, examples, chats, teacher, tmp_path: Path
) -> None:
    plan = {"kind": "reverse", "data_kind": "forward", "on_policy": 0.5, "prompts": 4, "max_new_tokens": 4}
    own = recipe(8, plan, "gkd", log_every=1)
    _, _, rows = run(tokenizer, examples, chats, teacher, tmp_path, "gkd", own=own)
    shares = [row["own_batches"] for row in rows]
    assert set(shares) == {0.0, 1.0}, "a batch is of one sort"
    assert all("age" in row for row in rows if row["own_batches"])


@pytest.mark.slow
def test_a_weak_student_learns_from_verdicts_alone(tokenizer, chats, tmp_path: Path) -> None:
    """Which letter is the last one: barely known after a few steps on answers, and then no answer is shown again."""
    from distill_dagster.training.data import Chat, encode
    from distill_dagster.training.trainer import train

    asked = [chat.messages[0]["content"] for chat in chats]
    last = [
        Chat(word, ({"role": "user", "content": word}, {"role": "assistant", "content": word[-1]})) for word in asked
    ]
    shown = encode(tokenizer, last, 64).examples
    facts = [{"record_id": word, "task": "last", "facts": {"word": word}, "answer": None} for word in asked]
    judge = Rewards(facts, domain(lambda task, facts, output: Opinion(output == facts["word"][-1])), {}, "1")
    from distill_dagster.training import presets

    model = presets.build("nano", tokenizer, 3)
    train(model, tokenizer, shown, Recipe(steps=25, **{**BASE, "learning_rate": 3e-3}), tmp_path / "sft")
    plan = {"prompts": 16, "group": 8, "max_new_tokens": 3}
    more = {"learning_rate": 2e-3, "batch_tokens": 8192, "log_every": 5, "schedule": "constant"}
    train(model, tokenizer, shown, recipe(60, plan, **more), tmp_path / "grpo", rewards=judge)
    rows = lines(tmp_path / "grpo")
    assert rows[0]["right"] < 0.2 and rows[-1]["right"] > 0.5
    assert all(row["kl_sampled"] < 1e-6 for row in rows), "one update a sampling is on-policy"
    assert rows[-1]["entropy"] < rows[0]["entropy"]
