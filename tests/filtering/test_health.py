"""Diversity and cut answers against their definitions, written out here."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from distill_dagster.filtering._health import SAMPLE, by_task, collapsed, cut_shares, diversity

WORDS = [a + b for a in ("bal", "cor", "dem", "fin", "gur") for b in ("a", "eto", "is", "um", "ock")]


def vendi(texts):
    """The definition: exp of the entropy of the eigenvalues of K / n."""
    grams = [Counter(zip(text.split(), text.split()[1:], strict=False)) for text in texts]
    kernel = np.zeros((len(texts), len(texts)))
    for a, one in enumerate(grams):
        for b, other in enumerate(grams):
            size = math.sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))
            kernel[a, b] = sum(one[key] * other[key] for key in one) / size
    weights = [value for value in np.linalg.eigvalsh(kernel / len(texts)) if value > 1e-12]
    return math.exp(-sum(value * math.log(value) for value in weights))


def test_scores_are_those_of_the_definitions():
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 12))) for _ in range(40)]
    found = diversity(texts)
    assert found["vendi"] == pytest.approx(vendi(texts), abs=0.01)
    for size in (1, 2):
        grams = [gram for text in texts for gram in zip(*(text.split()[at:] for at in range(size)), strict=False)]
        assert found[f"distinct_{size}"] == pytest.approx(len(set(grams)) / len(grams), abs=1e-4)


def test_the_ends_of_the_scale():
    assert diversity(["the same words again"] * 20)["vendi"] == 1
    assert diversity([f"{a} {b}" for a, b in zip(WORDS, WORDS[1:], strict=False)])["vendi"] == len(WORDS) - 1
    assert diversity([]) == {} and diversity(["one", "two"])["vendi"] == 2
    assert diversity(["", ""])["distinct_2"] == 1
    rng = random.Random(2)
    many = [" ".join(rng.choices(WORDS, k=8)) for _ in range(SAMPLE * 3)]
    assert diversity(many)["texts"] == SAMPLE and diversity(many) == diversity(many[::-1])


def test_a_set_that_collapsed_is_named():
    rng = random.Random(3)
    seeds = [" ".join(rng.choices(WORDS, k=8)) for _ in range(60)]
    narrow = [f"{seeds[0]} {word}" for word in WORDS]
    first = by_task(["t"] * 60, seeds)
    assert collapsed(by_task(["t"] * 25, narrow), first).keys() == {"t"}
    assert collapsed(by_task(["t"] * 20, seeds[:20]), first) == {}
    assert collapsed({"new": {"vendi": 1.0, "texts": 5}}, first) == {} == collapsed({"t": {}}, first)


def test_shares_of_cut_answers_by_task(make, candidate):
    rows = [candidate(at, f"q {at}", finish_reason="length" if at < 2 else "stop") for at in range(8)]
    rows += [candidate(8, "q", task="sum", status="failed", finish_reason="length")]
    table, _ = make(rows)
    assert cut_shares(table) == {"route": 0.25}
