"""The GRPO loss against its definition, worked token by token in float64."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.training.feeds._groups import EPSILON, Sample, advantages
from distill_dagster.training.own_samples import Rollout

pytestmark = pytest.mark.needs_torch

VOCABULARY, HIDDEN = 7, 5


def batch(lengths, advantage, by_sequence=False, seed=0, drift=0.4):
    """Samples with made-up earlier log-probabilities, the positions of their answers, and a head."""
    import torch

    from distill_dagster.training.objectives.base import Positions

    torch.manual_seed(seed)
    head = torch.randn(VOCABULARY, HIDDEN, dtype=torch.float64)
    hidden = torch.randn(sum(lengths), HIDDEN, dtype=torch.float64)
    labels = torch.randint(VOCABULARY, (sum(lengths),))
    rows = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    now = (hidden @ head.t()).log_softmax(-1).gather(1, labels[:, None])[:, 0]
    old = (now + drift * torch.randn(len(now))).float()
    reference = (now + torch.randn(len(now))).float()
    examples, start = [], 0
    for length, one in zip(lengths, advantage, strict=True):
        part = slice(start, start + length)
        weight = 1 / length if by_sequence else 1.0
        ids, weights = [0, 1, *labels[part].tolist()], [0.0, 0.0] + [weight] * length
        known = {"old": tuple(old[part].tolist()), "reference": tuple(reference[part].tolist())}
        examples.append(Rollout(f"r{len(examples)}", ids, weights, advantage=one, **known))
        start += length
    weights = torch.tensor([weight for one in examples for weight in one.weights if weight])

    def positions(dtype, hidden, head):
        return Positions(
            hidden=hidden.to(dtype),
            labels=labels,
            weights=weights,
            rows=rows,
            examples=examples,
            project=lambda states: states @ head.to(dtype).t(),
        )

    return positions, hidden, head, examples


def objective(**params):
    from distill_dagster.training.objectives.grpo import Objective

    return Objective(Objective.Params(**params))


def by_hand(hidden, head, positions, examples, *, temperature, low, high, kl, by_sequence):
    """The loss, one token after another, from the papers' formulas."""
    import torch

    logits = (hidden @ head.t()) / temperature
    at, terms, weights = 0, [], []
    for one in examples:
        length = sum(map(bool, one.weights))
        for number in range(length):
            shifted = logits[at] - logits[at].max()
            said = shifted[positions.labels[at]] - shifted.exp().sum().log()
            ratio = torch.exp(said - one.old[number])
            clipped = torch.clip(ratio, 1 - low, 1 + high)
            gain = torch.minimum(ratio * one.advantage, clipped * one.advantage)
            towards = math.nan if not kl else one.reference[number] - said
            penalty = kl * (torch.exp(towards) - towards - 1) if kl else 0.0
            terms.append(penalty - gain)
            weights.append(1 / length / len(examples) if by_sequence else None)
            at += 1
    if by_sequence:
        return sum(weight * term for weight, term in zip(weights, terms, strict=True))
    return torch.stack(terms).mean()


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    low=st.sampled_from([0.1, 0.2]),
    high=st.sampled_from([0.2, 0.28]),
    kl=st.sampled_from([0.0, 0.04]),
    by_sequence=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_loss_and_gradient_are_the_papers(lengths, temperature, low, high, kl, by_sequence, seed) -> None:
    import torch

    rng = random.Random(seed)
    positions, hidden, head, examples = batch(lengths, [rng.gauss(0, 1) for _ in lengths], by_sequence, seed)
    term = objective(
        sampling_temperature=temperature,
        clip_low=low,
        clip_high=high,
        kl=kl,
        mean="sequences" if by_sequence else "tokens",
    )
    found, exact = [], []
    for into, dtype in ((found, torch.float32), (exact, torch.float64)):
        own, layer = hidden.clone().requires_grad_(), head.clone().requires_grad_()
        given_ = positions(dtype, own, layer)
        if into is found:
            value = term(given_)
        else:
            rest = {"temperature": temperature, "low": low, "high": high, "kl": kl, "by_sequence": by_sequence}
            value = by_hand(own, layer, given_, examples, **rest)
        into += [value.detach().double(), *torch.autograd.grad(value, [own, layer])]
    for one, other in zip(found, exact, strict=True):
        scale = max(float(other.norm()), 1e-3)
        assert float((one - other).norm()) <= 1e-5 * scale + 1e-6


def test_without_drift_and_divergence_it_is_reinforce_with_that_baseline() -> None:
    import torch

    rewards, groups = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0], [0, 0, 0, 1, 1, 1]
    own = advantages(groups, rewards, std=False)
    assert own == pytest.approx([2 / 3, -1 / 3, -1 / 3, 1 / 3, 1 / 3, -2 / 3])
    positions, hidden, head, examples = batch([2, 3, 1, 4, 2, 2], own, drift=0.0)
    grads = []
    for which in ("grpo", "reinforce"):
        states, layer = hidden.clone().requires_grad_(), head.clone().requires_grad_()
        given_ = positions(torch.float64, states, layer)
        if which == "grpo":
            value = objective(std=False)(given_)
        else:
            said = (states @ layer.t()).log_softmax(-1).gather(1, given_.labels[:, None])[:, 0]
            value = -(said * torch.tensor(own)[given_.rows]).sum() / len(said)
        grads.append(torch.autograd.grad(value, [states, layer]))
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


def test_what_a_clip_takes_away() -> None:
    import torch

    # A good answer that is already 1.5 times as likely, and a bad one that is half as likely, give no gradient.
    positions, hidden, head, examples = batch([1, 1], [1.0, -1.0], drift=0.0)
    moved = [Rollout(**{**vars(one), "old": (one.old[0] + change,)}) for one, change in zip(
        examples, (-math.log(1.5), math.log(2)), strict=True
    )]  # fmt: skip
    states = hidden.clone().requires_grad_()
    given_ = positions(torch.float32, states, head)
    given_.examples = moved
    term = objective()
    value = term(given_)
    assert torch.autograd.grad(value, states)[0].abs().max() == 0
    assert value.item() == pytest.approx((-1.2 + 0.8) / 2, abs=1e-5)
    assert given_.measures["clipped"] == 1 and given_.measures["kl_sampled"] > 0
    assert 0 < given_.measures["entropy"] <= math.log(VOCABULARY)
    assert set(given_.measures) == set(term.measures) == {"entropy", "clipped", "kl_sampled"}
    # The other way round the policy is far behind, and both push it.
    given_ = positions(torch.float32, states, head)
    given_.examples = [Rollout(**{**vars(one), "advantage": -one.advantage}) for one in moved]
    assert torch.autograd.grad(term(given_), states)[0].abs().min(1).values.max() > 0
    assert given_.measures["clipped"] == 0


def test_records_have_their_cross_entropy() -> None:
    import torch

    from distill_dagster.training.data import Example
    from distill_dagster.training.objectives.sft import Objective

    positions, hidden, head, examples = batch([2, 3], [1.0, -1.0])
    given_ = positions(torch.float32, hidden, head)
    given_.examples = [Example(one.record_id, one.ids, one.weights) for one in examples]
    assert objective()(given_).item() == pytest.approx(Objective()(given_).item())


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=30),
    st.booleans(),
)
def test_advantages_are_against_the_own_group(judged, std) -> None:
    groups, rewards = [group for group, _ in judged], [reward for _, reward in judged]
    found = advantages(groups, rewards, std)
    for group in set(groups):
        own = [value for value, g in zip(found, groups, strict=True) if g == group]
        given_ = [reward for reward, g in zip(rewards, groups, strict=True) if g == group]
        assert sum(own) == pytest.approx(0, abs=1e-9)
        if len(set(given_)) == 1:
            assert set(own) == {0.0}
        elif std:
            spread = math.sqrt(sum(value**2 for value in own) / (len(own) - 1))
            assert spread == pytest.approx(1, rel=0.01) and spread < 1
            top = given_.index(max(given_))
            mean = sum(given_) / len(given_)
            deviation = math.sqrt(sum((one - mean) ** 2 for one in given_) / (len(given_) - 1))
            assert own[top] == pytest.approx((max(given_) - mean) / (deviation + EPSILON))


def test_a_samples_tokens_weigh_one_each_or_one_together() -> None:
    from distill_dagster.training.data import Example

    one = Sample(0, Example("r", [1, 2, 3], [0, 0, 1.0], "turn"), [1, 2], [5, 6, 0, 2], "x", False)
    made = one.rollout(7, 0.5)
    assert (made.ids, made.weights) == ([1, 2, 5, 6, 0, 2], [0, 0, 1, 1, 1, 1])
    assert (made.made, made.advantage, made.task, made.record_id) == (7, 0.5, "turn", "r")
    assert one.rollout(7, 0.5, True).weights == [0, 0, 0.25, 0.25, 0.25, 0.25]
