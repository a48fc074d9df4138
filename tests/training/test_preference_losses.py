"""DPO and SimPO against their definitions, written here in float64 on whole logits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.config.models import Recipe
from distill_dagster.errors import ConfigError, TrainingError
from distill_dagster.training.data import Example, Side

pytestmark = pytest.mark.needs_torch


def sides(pairs: int, rng) -> list[Example]:
    """Answers of random lengths, pairs in random order of their sides."""
    made = []
    for pair in range(pairs):
        both = []
        for chosen in (True, False):
            prompt, answer = int(rng.integers(1, 4)), int(rng.integers(1, 6))
            ids = [int(one) for one in rng.integers(0, 11, prompt + answer)]
            both.append(Example(f"p{pair}", ids, [0.0] * prompt + [1.0] * answer, side=Side(pair, chosen)))
        made += both if rng.random() < 0.5 else both[::-1]
    return made


def batch(pairs: int, seed: int, dtype=None, biased: bool = False, logits: bool = False):
    """Random hidden states of a batch of pairs, as the forward pass gives them."""
    import numpy as np
    import torch

    from distill_dagster.training import forward
    from distill_dagster.training.objectives.base import Positions

    rng, dtype = np.random.default_rng(seed), dtype or torch.float64
    examples = sides(pairs, rng)
    ids, weights = forward.pad(examples, 0)
    _, labels, weight, rows = forward.positions(ids, weights)
    width = 11 if logits else 5
    hidden = torch.tensor(rng.normal(size=(len(labels), width)), dtype=dtype).requires_grad_()
    head = None
    if not logits:
        matrix = torch.tensor(rng.normal(size=(11, width)), dtype=dtype).requires_grad_()
        head = (matrix, torch.tensor(rng.normal(size=11), dtype=dtype).requires_grad_() if biased else None)
    made = Positions(
        hidden, labels, forward.learned(weight, rows, examples).to(dtype), rows, examples, lambda h: h, head
    )
    made.signals = {"reference": torch.tensor(rng.normal(-4, 2, len(examples)), dtype=dtype)}
    return made


def leaves(positions) -> list:
    head = [part for part in positions.head or () if part is not None]
    return [positions.hidden, *head]


def by_definition(positions, name: str, params: dict):
    """The loss as its paper writes it, on whole logits, pair by pair; and the rewards."""
    import torch

    logits = positions.hidden
    if positions.head is not None:
        matrix, bias = positions.head
        logits = logits @ matrix.t() + (0 if bias is None else bias)
    said = logits.log_softmax(1)[range(len(positions.labels)), positions.labels]
    losses, better, worse = [], [], []
    for pair in sorted({example.side.pair for example in positions.examples}):
        value, start, count = {}, {}, {}
        for at, example in enumerate(positions.examples):
            if example.side.pair == pair:
                mine = [i for i, row in enumerate(positions.rows.tolist()) if row == at]
                value[example.side.chosen] = sum(said[i] for i in mine)
                start[example.side.chosen] = positions.signals["reference"][at]
                count[example.side.chosen] = len(mine)
        beta = params["beta"]
        if name == "simpo":
            good, bad = (beta * value[side] / count[side] for side in (True, False))
            losses.append(torch.log1p(torch.exp(-(good - bad - params["gamma"]))))
        else:
            good, bad = (beta * (value[side] - start[side]) for side in (True, False))
            if params["loss"] == "ipo":
                gap = (value[True] - start[True]) / count[True] - (value[False] - start[False]) / count[False]
                losses.append((gap - 1 / (2 * beta)) ** 2)
            else:
                # −log σ(x) is log(1 + e^−x), which loses nothing where σ(x) is near 1.
                epsilon, gap = params["label_smoothing"], good - bad
                losses.append((1 - epsilon) * torch.log1p(torch.exp(-gap)) + epsilon * torch.log1p(torch.exp(gap)))
        better.append(good)
        worse.append(bad)
    return sum(losses) / len(losses), better, worse


CASES = st.one_of(
    st.fixed_dictionaries(
        {"beta": st.floats(0.01, 2), "label_smoothing": st.floats(0, 0.49), "loss": st.just("sigmoid")}
    ).map(lambda params: ("dpo", params)),
    st.fixed_dictionaries({"beta": st.floats(0.05, 2), "loss": st.just("ipo")}).map(lambda params: ("dpo", params)),
    st.fixed_dictionaries({"beta": st.floats(0.1, 5), "gamma": st.floats(0, 3)}).map(lambda params: ("simpo", params)),
)


@given(case=CASES, pairs=st.integers(1, 5), seed=st.integers(0, 9999), biased=st.booleans(), logits=st.booleans())
@settings(max_examples=60, deadline=None)
def test_value_gradient_and_rewards_are_the_definitions(case, pairs, seed, biased, logits) -> None:
    import torch

    from distill_dagster.training.objectives.base import build

    name, params = case
    ours = batch(pairs, seed, biased=biased, logits=logits)
    loss = build(name, params)(ours)
    loss.backward()
    theirs = batch(pairs, seed, biased=biased, logits=logits)
    expected, better, worse = by_definition(theirs, name, params)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    for one, other in zip(leaves(ours), leaves(theirs), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-7, atol=1e-10)
    margins = [(good - bad).item() for good, bad in zip(better, worse, strict=True)]
    assert ours.measures[f"{name}_margin"] == pytest.approx(sum(margins) / pairs, rel=1e-9, abs=1e-12)
    assert ours.measures[f"{name}_accuracy"] == pytest.approx(sum(one > 0 for one in margins) / pairs, rel=1e-6)


@given(rows=st.integers(0, 40), tile=st.integers(1, 3000), seed=st.integers(0, 99), bf16=st.booleans())
@settings(max_examples=40, deadline=None)
def test_log_probabilities_are_the_same_in_any_tiles(rows, tile, seed, bf16) -> None:
    import torch

    from distill_dagster.training.losses.log_probs import log_probs

    made = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 6, generator=made).requires_grad_()
    head = torch.randn(23, 6, generator=made).requires_grad_()
    labels = torch.randint(23, (rows,), generator=made)
    scale = torch.randn(rows, generator=made)
    dtype = torch.bfloat16 if bf16 else torch.float32
    log_probs(hidden, (head.to(dtype), None), labels, tile).mul(scale).sum().backward()
    found = hidden.grad, head.grad
    hidden.grad = head.grad = None
    logits = (hidden.to(dtype) @ head.to(dtype).t()).float()
    expected = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    near = {"rtol": 0.05, "atol": 0.05} if bf16 else {"rtol": 1e-5, "atol": 1e-5}
    with torch.no_grad():
        torch.testing.assert_close(log_probs(hidden, (head.to(dtype), None), labels, tile), expected, **near)
    (expected * scale).sum().backward()
    torch.testing.assert_close(found, (hidden.grad, head.grad), **near)


def test_whole_logits_are_never_held() -> None:
    import torch

    from distill_dagster.training.losses import log_probs as module

    seen = []
    usual = module._logits

    def watched(states, weight, bias):
        made = usual(states, weight, bias)
        seen.append(made.numel())
        return made

    module._logits = watched
    try:
        hidden, head = torch.randn(100, 4, requires_grad=True), torch.randn(50, 4, requires_grad=True)
        labels = torch.arange(100) % 50
        module.log_probs(hidden, (head, None), labels, 4 * 50 * 10).sum().backward()
    finally:
        module._logits = usual
    assert len(seen) == 20 and max(seen) == 500


def test_sft_beside_a_term_on_pairs_learns_from_the_chosen_answers_alone() -> None:
    import torch

    from distill_dagster.training.objectives.base import build

    positions = batch(3, 7, logits=True)
    build("sft", {})(positions).backward()
    kept = [positions.examples[row].side.chosen for row in positions.rows.tolist()]
    moved = positions.hidden.grad.abs().sum(1) > 0
    assert moved.tolist() == kept
    logits = positions.hidden.detach()[torch.tensor(kept)]
    expected = torch.nn.functional.cross_entropy(logits, positions.labels[torch.tensor(kept)])
    assert build("sft", {})(positions).item() == pytest.approx(expected.item())


def test_parameters_that_make_no_sense_are_refused() -> None:
    from distill_dagster.training.objectives.base import build

    with pytest.raises(ConfigError, match="label_smoothing"):
        build("dpo", {"loss": "ipo", "label_smoothing": 0.1})
    with pytest.raises(ConfigError, match="dpo.beta"):
        build("dpo", {"beta": 0})
    with pytest.raises(ConfigError, match="'gamma'"):
        build("simpo", {"gama": 1.0})
    assert math.isfinite(build("simpo", {})(batch(1, 1)).item())


def test_what_is_no_pair_is_named() -> None:
    from distill_dagster.training.objectives.base import build

    positions = batch(2, 3)
    positions.signals = {}
    with pytest.raises(TrainingError, match="student before training, and there are none"):
        build("dpo", {})(positions)
    lonely = batch(2, 3)
    lonely.examples = [*lonely.examples[:-1], replace(lonely.examples[-1], side=None)]
    with pytest.raises(TrainingError, match="record p1: .*single answer"):
        build("simpo", {})(lonely)


@pytest.mark.parametrize("mixed", [{"sft": 1.0, "dpo": 0.5}, {"dpo": 1.0, "simpo": 1.0}])
def test_terms_on_pairs_share_one_feed_with_others(mixed: dict, tokenizer, nano) -> None:
    import numpy as np

    from distill_dagster.training.feeds.base import Setting
    from distill_dagster.training.feeds.base import build as feed
    from distill_dagster.training.objectives.base import build

    examples = sides(9, np.random.default_rng(4))
    recipe = Recipe(objective=mixed, batch_tokens=64, seed=3)
    made = feed([(name, build(name, {})) for name in mixed], Setting(nano, tokenizer, examples, recipe))
    stream = made.batches(0)
    seen: list[str] = []
    batches = []
    while len(seen) < 18:
        batches.append(next(stream))
        seen += [example.record_id for example in batches[-1]]
        numbers = [(example.side.pair, example.side.chosen) for example in batches[-1]]
        assert numbers == [(pair, side) for pair, _ in numbers[::2] for side in (True, False)]
        assert len(numbers) * max(len(example.ids) for example in batches[-1]) <= 64
    assert sorted(seen) == sorted(f"p{pair}" for pair in range(9) for _ in range(2))
    later = made.batches(2)
    assert [next(later) for _ in range(2)] == [batches[2], batches[3] if len(batches) > 3 else next(stream)]
