"""A step of several batches is the step of one batch as large, in value and gradient."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rollouts import PLANS, fresh, recipe, rewards

from distill_dagster.config.models import Recipe, identity
from distill_dagster.training.data import Example

pytestmark = pytest.mark.needs_torch

RECIPE = Recipe(steps=12, batch_tokens=256, learning_rate=3e-3, warmup_steps=2, checkpoint_every=5, log_every=3)


def taken(model, tokenizer, batches, folder: Path, objective=None):
    """Values and the whole gradient of one step."""
    import torch

    from distill_dagster.training.trainer import Run

    change = {"accumulate": len(batches), "grad_clip": 1e9, "objective": objective or {"sft": 1.0}}
    run = Run(model, tokenizer, [e for b in batches for e in b], RECIPE.model_copy(update=change), folder)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    values = run._update(batches)
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).clone()
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), weights, strict=True):
            parameter.copy_(weight)
    return values, gradient, run.learned


def same(one, other) -> None:
    assert one[0].keys() == other[0].keys() and one[2] == other[2]
    for name, value in one[0].items():
        assert value == pytest.approx(other[0][name], rel=1e-5)
    assert (one[1] - other[1]).norm() <= 1e-5 * other[1].norm()


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(1, 23), min_size=1, max_size=7, unique=True))
def test_unequal_batches_add_up_to_the_whole(tokenizer, examples, tmp_path_factory, nano_once, cuts) -> None:
    folder = tmp_path_factory.mktemp("step")
    # Weights that are no whole numbers, and records of very different lengths.
    chosen = [
        Example(e.record_id, e.ids * (1 + n % 3), [w * (0.5 + n % 4) for w in e.weights] * (1 + n % 3))
        for n, e in enumerate(examples[:24])
    ]
    edges = [0, *sorted(cuts), 24]
    parts = [chosen[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    same(taken(nano_once, tokenizer, parts, folder), taken(nano_once, tokenizer, [chosen], folder))


@pytest.fixture(scope="module")
def nano_once(tokenizer):
    """A nano model that the tests put back as it was."""
    from distill_dagster.training import presets

    return presets.build("nano", tokenizer, 3)


def test_eight_by_one_is_one_by_eight(tokenizer, examples, tmp_path: Path, nano_once) -> None:
    chosen = sorted(examples[:8], key=lambda example: len(example.ids))
    same(
        taken(nano_once, tokenizer, [[example] for example in chosen], tmp_path),
        taken(nano_once, tokenizer, [chosen], tmp_path),
    )


def test_a_batch_without_a_loss_adds_nothing(tokenizer, examples, tmp_path: Path, nano_once) -> None:
    empty = Example("empty", [5, 6, 7], [1.0, 0.0, 0.0])
    same(
        taken(nano_once, tokenizer, [examples[:4], [empty], examples[4:6]], tmp_path),
        taken(nano_once, tokenizer, [examples[:6]], tmp_path),
    )


def test_an_objective_may_count_in_units_of_its_own(
    tokenizer, examples, tmp_path: Path, nano_once, monkeypatch
) -> None:
    from distill_dagster.training.objectives import sft

    def call(self, positions):
        """The mean over records of their summed loss."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(positions.logits, positions.labels, reduction="sum") / len(positions.examples)

    monkeypatch.setattr(sft.Objective, "__call__", call)
    monkeypatch.setattr(sft.Objective, "units", lambda self, chosen: len(chosen), raising=False)
    same(
        taken(nano_once, tokenizer, [examples[:1], examples[1:4], examples[4:9]], tmp_path),
        taken(nano_once, tokenizer, [examples[:9]], tmp_path),
    )


def test_numbers_beside_a_value_are_of_all_batches_of_a_step(tokenizer, examples, chats, tmp_path: Path) -> None:
    import torch

    from distill_dagster.training.trainer import Run

    def run() -> Run:
        model = fresh(tokenizer)
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(8)  # so that answers differ in how sure they are
        own = recipe(4, PLANS["grpo"], batch_tokens=160, accumulate=2)
        return Run(model, tokenizer, examples, own, tmp_path, rewards=rewards(chats))

    parts = run()
    batches = list(itertools.islice(parts.feed.batches(0), 2))
    found, last, whole = (run()._update(given) for given in (batches, batches[1:], [[*batches[0], *batches[1]]]))
    assert list(found) == list(whole) == ["loss", "grpo", "entropy", "clipped", "kl_sampled", "kl", "grad_norm"]
    assert found == pytest.approx(whole, rel=1e-5, abs=1e-6)
    assert last["entropy"] != pytest.approx(whole["entropy"], rel=1e-3)


class Stop(Exception):
    """Stands for a kill."""


def test_a_killed_run_of_many_batches_ends_alike(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training import metrics, presets
    from distill_dagster.training.trainer import train

    recipe = RECIPE.model_copy(update={"accumulate": 3})

    def kill(step: int, steps: int, loss: float) -> None:
        if step == 9:
            raise Stop

    whole = presets.build("nano", tokenizer, 3)
    summary = train(whole, tokenizer, examples, recipe, tmp_path / "whole")
    again = presets.build("nano", tokenizer, 3)
    with pytest.raises(Stop):
        train(again, tokenizer, examples, recipe, tmp_path / "killed", progress=kill)
    again = presets.build("nano", tokenizer, 3)
    resumed = train(again, tokenizer, examples, recipe, tmp_path / "killed")
    assert resumed["resumed_from"] == 5
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert one.equal(other)
    rows = [metrics.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "killed")]
    assert [(r["step"], r["loss"], r["tokens"]) for r in rows[0]] == [
        (r["step"], r["loss"], r["tokens"]) for r in rows[1]
    ]
    # Three batches a step: three times the tokens, not three times the loss.
    single = train(presets.build("nano", tokenizer, 3), tokenizer, examples, RECIPE, tmp_path / "single")
    assert summary["tokens"] > 2 * single["tokens"]
    assert summary["first_loss"] == pytest.approx(single["first_loss"], rel=0.1)


def test_at_their_defaults_the_new_fields_are_no_identity() -> None:
    names = {"accumulate", "packing", "processes", "early_stop", "rationale", "device"}
    assert not names & set(identity(Recipe()))
    assert "device" not in identity(Recipe(device="cpu"))
    assert identity(Recipe(accumulate=2))["accumulate"] == 2
    with pytest.raises(ValueError, match="multiple of `processes`"):
        Recipe(accumulate=3, processes=2)


def test_a_classifiers_record_of_one_token_has_its_share() -> None:
    from distill_dagster.training.data import Example
    from distill_dagster.training.shares import shares

    short, longer = Example("a", [5], [1.0], label=0, text="x"), Example("b", [5, 6], [0.0, 3.0], label=1, text="xy")
    assert shares({"sft": object()}, [[short], [longer]]) == [{"sft": 0.25}, {"sft": 0.75}]
