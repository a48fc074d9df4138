"""Confidence intervals: percentile bootstrap over subjects, paired over arms, crossed with training seeds.

Items: whole subjects are drawn with replacement (cluster bootstrap; Efron & Tibshirani 1993, Davison & Hinkley 1997),
every arm on the same draw, so a difference is paired. Seeds: each replicate moves the seed means by normal
multipliers, scaled so that few seeds give Student's t interval and not the far too narrow percentile one (three
seeds have 27 resamples). Both at once is a crossed bootstrap, a little conservative (Owen 2007).
Where no replicate differs from another the bootstrap knows nothing of what it did not see: there the bound is exact
(`without_spread`). Of fewer than `MIN_SUBJECTS` subjects none is claimed: its bounds are infinite.
Draws come from `RandomState`, whose stream numpy has frozen (NEP 19), so a number does not change with the version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: With fewer independent subjects than this no interval can be believed.
MIN_SUBJECTS = 10
#: Numbers held at once while drawing.
CHUNK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence bounds; infinite ones say that there are too few subjects for any."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        resamples: Replicates.
        level: Confidence level.
        seed: The draws follow from it and from the number of subjects alone.
    """

    resamples: int = 2000
    level: float = 0.95
    seed: int = 0

    def for_name(self, name: str) -> Bootstrap:
        """The same settings with draws of their own."""
        mixed = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return Bootstrap(self.resamples, self.level, int.from_bytes(mixed[:4], "big"))


def codes(keys: Sequence[Hashable]) -> tuple[NDArray[np.int64], int]:
    """Keys as numbers from 0 in order of first appearance, and how many there are."""
    known: dict[Hashable, int] = {}
    numbers = np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)
    return numbers, len(known)


def _counts(units: int, options: Bootstrap) -> Iterator[Floats]:
    """How often each of `units` subjects is drawn, in blocks of replicates: arrays of (block, units)."""
    random = np.random.RandomState(options.seed)
    block = max(1, CHUNK // max(units, 1))
    for start in range(0, options.resamples, block):
        size = min(block, options.resamples - start)
        drawn = random.randint(0, units, size=(size, units)) + np.arange(size)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)


def seed_weights(seeds: int, options: Bootstrap, seed: int | None = None) -> Floats:
    """Weight of each training seed in each replicate, (resamples, seeds), every row with mean 1.

    With one seed all weights are 1: the interval is over items only.
    """
    if seeds == 1:
        return np.ones((options.resamples, 1))
    from scipy.special import stdtrit

    tail = (1 + options.level) / 2
    stretch = float(stdtrit(seeds - 1, tail)) / NormalDist().inv_cdf(tail) * (seeds / (seeds - 1)) ** 0.5
    normal = np.random.RandomState((options.seed if seed is None else seed) ^ 0x5EED).standard_normal(
        (options.resamples, seeds)
    )
    return 1 + stretch * (normal - normal.mean(axis=1, keepdims=True))


def replicates(
    scores: Floats, clusters: NDArray[np.int64], units: int, options: Bootstrap, weights: Floats | None = None
) -> Floats:
    """Resampled means of several arms on the same draws.

    Args:
        scores: (arms, seeds, items).
        clusters: Subject number of each item, below `units`.
        units: Subjects that are drawn from; some may have no item here.
        options: Number of replicates and the seed.
        weights: `seed_weights`; made from `options` where left out.

    Returns:
        (resamples, arms); NaN where a draw holds none of the items.
    """
    arms, seeds, _ = scores.shape
    flat = scores.reshape(arms * seeds, -1)
    sums = np.stack([np.bincount(clusters, weights=row, minlength=units) for row in flat], axis=1)
    sizes = np.bincount(clusters, minlength=units).astype(np.float64)
    blocks = []
    for counts in _counts(units, options):
        with np.errstate(invalid="ignore", divide="ignore"):
            blocks.append((counts @ sums) / (counts @ sizes)[:, None])
    means = np.concatenate(blocks).reshape(options.resamples, arms, seeds)
    return np.einsum("ras,rs->ra", means, seed_weights(seeds, options) if weights is None else weights) / seeds


def percentile(values: Floats, level: float) -> tuple[float, float]:
    """The central `level` of the replicates that are numbers."""
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def unseen(units: int, level: float) -> float:
    """Largest share of a population that `units` draws may all have missed, at half of 1 - level.

    It solves (1 - share) ** units = (1 - level) / 2: the exact binomial bound of no case in `units` (Clopper & Pearson
    1934), of which the rule of three is the approximation (Hanley & Lippman-Hand 1983).
    """
    return 1 - ((1 - level) / 2) ** (1 / units)


def without_spread(value: float, units: int, level: float, least: float, most: float) -> Interval:
    """Exact bounds of a mean of which every subject showed the same value; what was not seen lies in least to most."""
    share = unseen(units, level)
    return Interval(value, value - (value - least) * share, value + (most - value) * share)


def no_spread(values: Floats) -> bool:
    """Are all replicates the same, rounding aside?"""
    return bool(np.nanmax(values) - np.nanmin(values) < 1e-9)


def _interval(value: float, values: Floats, units: int, level: float, least: float) -> Interval:
    """Interval of a mean from its replicates; what it is the mean of lies in `least` to 1."""
    if units < MIN_SUBJECTS:
        return Interval(value, -np.inf, np.inf)
    if no_spread(values):
        return without_spread(value, units, level, least, 1.0)
    return Interval(value, *percentile(values, level))


def of_mean(scores: Floats, values: Floats, units: int, level: float) -> Interval:
    """Interval of one arm's mean score from its replicates; the bounds stay within 0 and 1."""
    found = _interval(float(scores.mean()), values, units, level, 0.0)
    return found if units < MIN_SUBJECTS else Interval(found.value, max(found.low, 0.0), min(found.high, 1.0))


def of_difference(value: float, values: Floats, units: int, level: float) -> Interval:
    """Interval of a difference of mean scores from its replicates."""
    return _interval(value, values, units, level, -1.0)


def of_ratio(top: float, bottom: float, tops: Floats, bottoms: Floats, units: int, level: float) -> Interval | None:
    """Interval of top / bottom, resampled jointly; None where the bottom's interval is not wholly above 0.

    A replicate whose bottom is not positive counts as infinitely low for the lower bound and infinitely high for
    the upper one. That is the set of g for which top - g * bottom = 0 is not rejected (Fieller 1954, with
    bootstrap quantiles), made no narrower; the bounds are order statistics, so they never interpolate to infinity.
    Where every replicate gives one ratio c, top - c * bottom has no spread, and its exact bound is divided by the
    bottom's lower one.
    """
    under = of_difference(bottom, bottoms, units, level)
    if bottom <= 0 or under.low <= 0:
        return None
    unusable = ~(bottoms > 0)
    ratio = tops / np.where(unusable, 1.0, bottoms)
    if not unusable.any() and no_spread(ratio):
        value = top / bottom
        # Scores lie in 0 to 1, so (s - k) - c * (t - k) of one subject lies in plus and minus this:
        reach = max(1.0, abs(value), abs(1 - value)) * unseen(units, level) / under.low
        return Interval(value, value - reach, value + reach)
    last = len(ratio) - 1
    low = np.sort(np.where(unusable, -np.inf, ratio))[int(np.floor(last * (1 - level) / 2))]
    high = np.sort(np.where(unusable, np.inf, ratio))[int(np.ceil(last * (1 + level) / 2))]
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    return Interval(top / bottom, float(low), float(high))


def _prepare(
    arms: Sequence[ArrayLike], subjects: Sequence[Hashable] | None, options: Bootstrap
) -> tuple[Floats, Floats, int]:
    rows = [np.atleast_2d(np.asarray(arm, dtype=np.float64)) for arm in arms]
    if rows[0].shape[1] == 0:
        raise ValueError("no items to make an interval of")
    scores = np.stack(np.broadcast_arrays(*rows))
    keys = list(range(scores.shape[2])) if subjects is None else list(subjects)
    if len(keys) != scores.shape[2]:
        raise ValueError(f"{len(keys)} subjects for {scores.shape[2]} items")
    clusters, units = codes(keys)
    return scores, replicates(scores, clusters, units, options), units


def mean_interval(
    scores: ArrayLike, subjects: Sequence[Hashable] | None = None, options: Bootstrap | None = None
) -> Interval:
    """Interval of a mean score. `scores` is (items) or (seeds, items); `subjects` groups items, else each its own."""
    options = options or Bootstrap()
    arms, values, units = _prepare([scores], subjects, options)
    return of_mean(arms[0], values[:, 0], units, options.level)


def difference_interval(
    a: ArrayLike, b: ArrayLike, subjects: Sequence[Hashable] | None = None, options: Bootstrap | None = None
) -> Interval:
    """Paired interval of mean(a) - mean(b) on the same items (and, with several rows, the same seeds)."""
    options = options or Bootstrap()
    arms, values, units = _prepare([a, b], subjects, options)
    value = float(arms[0].mean() - arms[1].mean())
    return of_difference(value, values[:, 0] - values[:, 1], units, options.level)


def gap_closed(
    student: ArrayLike,
    control: ArrayLike,
    teacher: ArrayLike,
    subjects: Sequence[Hashable] | None = None,
    options: Bootstrap | None = None,
) -> Interval | None:
    """(s - k) / (t - k) with its interval; None where the interval of t - k is not wholly above 0."""
    options = options or Bootstrap()
    arms, values, units = _prepare([student, control, teacher], subjects, options)
    s, k, t = (float(arm.mean()) for arm in arms)
    return of_ratio(s - k, t - k, values[:, 0] - values[:, 1], values[:, 2] - values[:, 1], units, options.level)
