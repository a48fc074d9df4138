"""Agreement of reviewers beyond chance: Cohen's kappa for two, Krippendorff's alpha for more, with intervals.

Both are 1 where all agree and 0 where they agree as often as chance would have it. Alpha takes records that only some
of the reviewers judged (Krippendorff 2011, nominal data). The intervals are percentile bootstraps over records
(Efron and Tibshirani 1993); a draw in which every verdict is the same says nothing about agreement and is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill_dagster.evaluation.intervals import Bootstrap

#: What one reviewer each said of one record.
Unit = Mapping[str, Hashable]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How far reviewers agree.

    Attributes:
        measure: Cohen's kappa, or Krippendorff's alpha.
        value: The coefficient; None where every verdict is the same, so that there is nothing to agree on.
        low: Lower bound of its interval, None with `value`.
        high: Upper bound.
        records: Records that at least two reviewers judged.
        same: Share of pairs of verdicts on one record that are equal.
    """

    measure: str
    value: float | None
    low: float | None
    high: float | None
    records: int
    same: float


def agreement(units: Sequence[Unit], options: Bootstrap | None = None) -> Agreement | None:
    """Agreement over records; None where no record has two verdicts.

    Args:
        units: For each record, verdicts by reviewer.
        options: Resamples, level and seed of the interval.
    """
    options = options or Bootstrap()
    shared = [unit for unit in units if len(unit) > 1]
    reviewers = sorted({name for unit in shared for name in unit})
    if not shared:
        return None
    values = sorted({value for unit in shared for value in unit.values()}, key=repr)
    if len(reviewers) == 2:
        measure, coefficient = "Cohen's kappa", _kappa
        patterns = Counter(tuple(values.index(unit[name]) for name in reviewers) for unit in shared)
        tables = [_pair(pattern, len(values)) for pattern in patterns]
    else:
        measure, coefficient = "Krippendorff's alpha", _alpha
        patterns = Counter(tuple(sorted(values.index(value) for value in unit.values())) for unit in shared)
        tables = [_coincidences(pattern, len(values)) for pattern in patterns]
    stack, counts = np.stack(tables), np.array(list(patterns.values()), dtype=np.float64)
    whole = np.tensordot(counts, stack, 1)[None]
    value = float(coefficient(whole)[0])
    same = float(np.trace(whole[0]) / whole.sum())
    if np.isnan(value):
        return Agreement(measure, None, None, None, len(shared), same)
    draws = np.random.RandomState(options.seed).multinomial(len(shared), counts / counts.sum(), options.resamples)
    drawn = coefficient(np.tensordot(draws.astype(np.float64), stack, 1))
    edge = (1 - options.level) / 2
    low, high = np.nanquantile(drawn, [edge, 1 - edge])
    return Agreement(measure, value, float(low), float(high), len(shared), same)


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float:
    """Cohen's kappa (1960) of two reviewers' verdicts; nan where all are the same."""
    values = sorted({value for pair in pairs for value in pair}, key=repr)
    table = sum(_pair((values.index(first), values.index(second)), len(values)) for first, second in pairs)
    return float(_kappa(np.asarray(table)[None])[0])


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float:
    """Krippendorff's alpha for nominal data: verdicts on each record, two or more each; nan where all are the same."""
    values = sorted({value for unit in units for value in unit}, key=repr)
    pairable = [unit for unit in units if len(unit) > 1]
    table = sum(_coincidences(tuple(values.index(value) for value in unit), len(values)) for unit in pairable)
    return float(_alpha(np.asarray(table)[None])[0])


def _pair(pattern: tuple[int, ...], size: int) -> Floats:
    """The contingency table of one record."""
    table = np.zeros((size, size))
    table[pattern] = 1
    return table


def _coincidences(pattern: tuple[int, ...], size: int) -> Floats:
    """The coincidence matrix of one record: every ordered pair of its m values, weighed 1/(m − 1)."""
    counts = np.bincount(pattern, minlength=size).astype(np.float64)
    return (np.outer(counts, counts) - np.diag(counts)) / (len(pattern) - 1)


def _kappa(tables: Floats) -> Floats:
    """Kappa of contingency tables, (n, k, k) → (n,)."""
    total = tables.sum(axis=(1, 2))
    seen = np.trace(tables, axis1=1, axis2=2) / total
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / total**2
    return _beyond(seen, chance)


def _alpha(tables: Floats) -> Floats:
    """Nominal alpha of coincidence matrices, (n, k, k) → (n,)."""
    total = tables.sum(axis=(1, 2))
    values = tables.sum(axis=1)
    seen = np.trace(tables, axis1=1, axis2=2) / total
    chance = (values * (values - 1)).sum(axis=1) / (total * (total - 1))
    return _beyond(seen, chance)


def _beyond(seen: Floats, chance: Floats) -> Floats:
    """(seen − chance) / (1 − chance), nan where chance leaves nothing."""
    room = 1 - chance
    return np.divide(seen - chance, room, out=np.full_like(seen, np.nan), where=room > 1e-12)
