"""Properties of the bootstrap, and its coverage by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.evaluation.intervals import (
    MIN_SUBJECTS,
    Bootstrap,
    codes,
    difference_interval,
    gap_closed,
    mean_interval,
    of_ratio,
    seed_weights,
)

FEW = Bootstrap(resamples=300)


def bits(count, share, seed=0):
    return (np.random.RandomState(seed).rand(count) < share).astype(float)


scores = st.lists(st.sampled_from([0.0, 1.0]), min_size=MIN_SUBJECTS, max_size=60)


@settings(max_examples=40)
@given(scores, st.integers(0, 5))
def test_an_arm_does_not_differ_from_itself(arm, seed):
    """Nothing else was seen, so the bounds are what as many items may have missed."""
    both = difference_interval(arm, arm, options=Bootstrap(100, seed=seed))
    assert both.value == 0 and both.high == -both.low == pytest.approx(1 - 0.025 ** (1 / len(arm)))


@settings(max_examples=40)
@given(scores)
def test_the_interval_holds_the_mean_and_stays_within_bounds(arm):
    found = mean_interval(arm, options=FEW)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.value == pytest.approx(np.mean(arm))


@settings(max_examples=30)
@given(scores, st.floats(0.05, 0.5))
def test_intervals_move_with_the_scores(arm, shift):
    """Adding a constant to every score moves mean and bounds by that constant (before bounds of 0 and 1 apply)."""
    arm[:2] = [0.0, 1.0]  # without any spread the exact bounds, which do not move, take over
    half = np.array(arm) / 4 + 0.25
    plain, moved = (
        difference_interval(half, 0 * half, options=FEW),
        difference_interval(half + shift, 0 * half, options=FEW),
    )
    assert moved.low == pytest.approx(plain.low + shift) and moved.high == pytest.approx(plain.high + shift)


def test_a_better_arm_has_no_lower_bound():
    worse = bits(300, 0.5)
    better = np.maximum(worse, bits(300, 0.3, seed=1))
    a, b = mean_interval(worse, options=FEW), mean_interval(better, options=FEW)
    assert a.value < b.value and a.low <= b.low and a.high <= b.high


def test_the_same_input_gives_the_same_numbers_and_a_wider_level_a_wider_interval():
    arm = bits(200, 0.4)
    assert mean_interval(arm) == mean_interval(arm)
    assert mean_interval(arm) != mean_interval(arm, options=Bootstrap(seed=1))
    narrow, wide = (mean_interval(arm, options=Bootstrap(level=level)) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_stream_is_pinned():
    """Numbers that a report printed must come out again with every numpy this package runs on."""
    found = mean_interval([i * i % 37 / 37 for i in range(50)], options=Bootstrap(resamples=200, seed=7))
    assert (found.low, found.high) == pytest.approx((0.395932432432, 0.558445945946), abs=1e-9)
    assert seed_weights(3, Bootstrap(resamples=2, seed=7))[0] == pytest.approx(
        [-2.112046057704, 3.131305399, 1.980740659]
    )


def test_close_to_the_normal_interval_where_that_one_is_right():
    arm = bits(2000, 0.6)
    found = mean_interval(arm)
    half = 1.96 * arm.std() / np.sqrt(len(arm))
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_subjects_widen_the_interval_where_their_items_agree():
    per_subject = bits(60, 0.5)
    arm = np.repeat(per_subject, 10)
    subjects = np.repeat(np.arange(60), 10).tolist()
    items, clustered = mean_interval(arm), mean_interval(arm, subjects)
    ratio = (clustered.high - clustered.low) / (items.high - items.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.15)


def test_pairing_narrows_a_difference_of_arms_that_err_together():
    base = bits(400, 0.5)
    other = base.copy()
    other[:20] = 1 - other[:20]
    paired = difference_interval(base, other)
    apart = difference_interval(base, np.random.RandomState(3).permutation(other))
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low)


def test_all_right_or_all_wrong_is_no_certainty():
    right, wrong = mean_interval([1.0] * 20), mean_interval([0.0] * 20)
    assert (right.value, right.high) == (1, 1) and right.low == pytest.approx(0.025 ** (1 / 20))
    assert (wrong.value, wrong.low) == (0, 0) and wrong.high == pytest.approx(1 - 0.025 ** (1 / 20))
    rule_of_three = difference_interval([1.0] * 1000, [1.0] * 1000, options=Bootstrap(level=0.9))
    assert rule_of_three.high == -rule_of_three.low == pytest.approx(3 / 1000, rel=0.01)
    better = difference_interval([1.0] * 20, [0.0] * 20)
    assert (better.value, better.high) == (1, 1) and better.low == pytest.approx(2 * 0.025 ** (1 / 20) - 1)


@pytest.mark.parametrize("arm", [[1.0] * 100, [0.0] * 40 + [1.0] * 60])
def test_few_subjects_give_no_interval(arm):
    for subjects, some in ((["p"] * 100, False), ([index % 9 for index in range(100)], False), (range(100), True)):
        wrong = [1 - score for score in arm]
        bounds = [mean_interval(arm, list(subjects)), difference_interval(arm, wrong, list(subjects))]
        assert all(np.isfinite([found.low, found.high]).all() == some for found in bounds)
        if not some:
            assert all((found.low, found.high) == (-np.inf, np.inf) for found in bounds)
            assert gap_closed(arm, [0.0] * 100, [1.0] * 100, list(subjects)) is None


def test_a_gap_of_ten_items_all_closed_is_no_certainty():
    right, wrong = [1.0] * 10, [0.0] * 10
    found = gap_closed(right, wrong, right)
    assert found is not None and found.value == 1 and 0 < found.low < 0.3 and found.high > 1.7


def test_gap_closed_is_one_for_the_teacher_and_zero_for_the_control():
    control, teacher = bits(500, 0.3), bits(500, 0.9, seed=1)
    whole, none = gap_closed(teacher, control, teacher), gap_closed(control, control, teacher)
    assert whole is not None and (whole.value, whole.low, whole.high) == pytest.approx((1, 1, 1), abs=0.02)
    assert none is not None and (none.value, none.low, none.high) == pytest.approx((0, 0, 0), abs=0.02)
    assert whole.low < 1 < whole.high and none.low < 0 < none.high
    between = gap_closed(bits(500, 0.6, seed=2), control, teacher)
    assert between is not None and 0.3 < between.low < between.value < between.high < 0.7


def test_no_gap_where_teacher_and_control_cannot_be_told_apart():
    control, teacher = bits(100, 0.5), bits(100, 0.52, seed=1)
    assert gap_closed(bits(100, 0.5, seed=2), control, teacher) is None
    assert gap_closed(control, teacher, control) is None
    assert gap_closed(control, control, control) is None


def test_resamples_without_a_gap_count_against_the_ratio():
    bottoms = np.linspace(-0.01, 1, 400)  # 1 % of the replicates are not positive
    tops = np.full(400, 0.2)
    found = of_ratio(0.2, 0.5, tops, bottoms, 100, 0.95)
    assert found is not None and np.isfinite([found.low, found.high]).all()
    naive = np.quantile(tops[bottoms > 0] / bottoms[bottoms > 0], 0.975)
    assert found.high > naive
    assert of_ratio(0.2, 0.5, tops, np.linspace(-0.05, 1, 400), 100, 0.95) is None


def test_seeds_widen_the_interval_and_one_seed_does_not():
    options = Bootstrap(resamples=2000)
    assert np.all(seed_weights(1, options) == 1)
    assert seed_weights(4, options).mean(axis=1) == pytest.approx(1)
    luck = np.array([0.4, 0.5, 0.6])[:, None]
    arm = np.broadcast_to(luck, (3, 200))
    found = mean_interval(arm, options=options)
    half = 4.303 * 0.1 / np.sqrt(3)
    assert found.value == pytest.approx(0.5)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)
    same = np.stack([bits(200, 0.5)] * 3)
    assert mean_interval(same).high == pytest.approx(mean_interval(same[0]).high)


def test_seeds_are_paired():
    luck = np.array([0.1, -0.1, 0.05, -0.05])[:, None]
    base = np.full((4, 50), 0.5) + luck
    found = difference_interval(base + np.linspace(0.199, 0.201, 50), base)
    assert found.low == pytest.approx(0.2, abs=0.001) and found.high == pytest.approx(0.2, abs=0.001)


def test_bad_shapes():
    with pytest.raises(ValueError, match="3 subjects for 2 items"):
        mean_interval([0, 1], ["a", "b", "c"])
    with pytest.raises(ValueError, match="no items"):
        mean_interval([])
    assert codes(["b", "a", "b"])[0].tolist() == [0, 1, 0]


def coverage(draw, truth, runs, make):
    hits = 0
    for run in range(runs):
        found = make(*draw(np.random.RandomState(run)))
        hits += found is not None and found.low <= truth <= found.high
    return hits / runs


def correlated(random, subjects, each, share):
    """0/1 scores whose subjects differ: each subject has a share of its own around the mean."""
    own = np.clip(share + 0.25 * random.randn(subjects), 0, 1)
    return (random.rand(subjects, each) < own[:, None]).astype(float).ravel(), np.repeat(
        np.arange(subjects), each
    ).tolist()


@pytest.mark.slow
def test_coverage_of_clustered_means():
    truth = np.clip(0.5 + 0.25 * np.random.RandomState(1).randn(10**6), 0, 1).mean()
    inside = coverage(lambda r: correlated(r, 60, 6, 0.5), truth, 400, lambda a, s: mean_interval(a, s, Bootstrap(400)))
    ignored = coverage(
        lambda r: correlated(r, 60, 6, 0.5), truth, 400, lambda a, s: mean_interval(a, None, Bootstrap(400))
    )
    assert 0.91 <= inside <= 0.98
    assert ignored < inside - 0.05


@pytest.mark.slow
def test_coverage_of_the_gap_closed():
    def draw(random):
        hard = random.rand(200)  # arms err on the same items
        return tuple((hard + 0.2 * random.randn(200) < share).astype(float) for share in (0.6, 0.4, 0.8))

    many = np.random.RandomState(5)
    hard = many.rand(10**6)
    s, k, t = (float((hard + 0.2 * many.randn(10**6) < share).mean()) for share in (0.6, 0.4, 0.8))
    assert (
        0.91 <= coverage(draw, (s - k) / (t - k), 400, lambda *arms: gap_closed(*arms, options=Bootstrap(400))) <= 0.98
    )


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_over_items_and_seeds(seeds):
    def draw(random):
        hard, luck = random.randn(150), 0.4 * random.randn(seeds)
        return ((hard[None] + luck[:, None] + 0.5 * random.randn(seeds, 150) > 0).astype(float),)

    inside = coverage(draw, 0.5, 400, lambda arm: mean_interval(arm, options=Bootstrap(400)))
    assert 0.92 <= inside <= 0.995
