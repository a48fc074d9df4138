"""The codec of stored signals: what is read is nearly what was said, in few bytes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.training.signals import codec


def said(rng: np.random.Generator, count: int, k: int, vocabulary: int, scale: float, temperatures: Any) -> Any:
    """A random teacher's top-k and rest, and its whole distributions at each temperature, float64."""
    logits = rng.normal(size=(count, vocabulary)) * scale
    whole = [logits / t - np.log(np.exp(logits / t).sum(1, keepdims=True)) for t in temperatures]
    ids = np.argsort(-logits, 1)[:, :k]
    outside = np.ones_like(logits, bool)
    np.put_along_axis(outside, ids, False, 1)
    rest = np.stack([np.log((np.exp(log_p) * outside).sum(1)) for log_p in whole], 1)
    first = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return codec.Signal(ids, np.take_along_axis(first, ids, 1), rest), whole


def divergence(signal: codec.Signal, log_p: np.ndarray) -> np.ndarray:
    """KL in nats between the true buckets and those that were read, of each position."""
    true = np.take_along_axis(log_p, signal.ids, 1)
    rest = np.log(np.maximum(-np.expm1(np.log(np.exp(true).sum(1))), 1e-12))
    true = np.concatenate([true, rest[:, None]], 1)
    read = np.concatenate([signal.log_probs, signal.log_rest], 1).astype(np.float64)
    return (np.exp(true) * (true - read)).sum(1)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 9),
    k=st.integers(1, 33),
    more=st.integers(1, 300),
    scale=st.floats(0.1, 8),
    declared=st.sampled_from([0, 65_536, 65_537, 151_936, 1 << 18]),
    temperatures=st.sampled_from([(1.0,), (1.0, 2.0), (0.5, 1.0, 4.0)]),
)
def test_what_is_read_is_nearly_what_was_said(
    seed: int, count: int, k: int, more: int, scale: float, declared: int, temperatures: tuple[float, ...]
) -> None:
    vocabulary = k + more
    layout = codec.Layout(k, temperatures, max(declared, vocabulary))
    signal, whole = said(np.random.default_rng(seed), count, k, vocabulary, scale, temperatures)
    spread = layout.vocabulary - vocabulary  # ids at the top of the vocabulary need all their bits
    blob = codec.encode(codec.Signal(signal.ids + spread, signal.log_probs, signal.log_rest), layout)
    assert len(blob) == layout.width * count
    read = codec.decode(blob, layout)
    assert (read.ids == signal.ids + spread).all()
    for index, temperature in enumerate(temperatures):
        for size in {k, max(1, k // 2)}:
            found = codec.at(read, temperatures, temperature, size)
            assert found.ids.shape == (count, size)
            total = np.exp(found.log_probs.astype(np.float64)).sum(1) + np.exp(found.log_rest[:, 0].astype(np.float64))
            assert total == pytest.approx(np.ones(count), abs=1e-5)
            plain = codec.Signal(signal.ids[:, :size], found.log_probs, found.log_rest)
            assert (divergence(plain, whole[index]) < 1e-3 / min(1.0, temperature) ** 2).all()


@pytest.mark.parametrize(("vocabulary", "width"), [(32_000, 50), (65_536, 50), (65_537, 54), (151_936, 54)])
def test_sixteen_tokens_take_at_most_sixty_bytes(vocabulary: int, width: int) -> None:
    assert codec.Layout(16, (1.0,), vocabulary).width == width
    assert codec.Layout(16, (1.0, 1.5, 2.0, 4.0), vocabulary).width <= 60


def test_a_certain_teacher_and_bad_blobs() -> None:
    layout = codec.Layout(2, (1.0,), 100)
    sure = codec.Signal(np.array([[7, 3]]), np.array([[0.0, -90.0]]), np.array([[-np.inf]]))
    read = codec.at(codec.decode(codec.encode(sure, layout), layout), (1.0,), 1.0, 2)
    assert read.log_probs[0, 0] == pytest.approx(0, abs=1e-6) and read.log_rest[0, 0] < -60
    with pytest.raises(ValueError, match="whole number"):
        codec.decode(b"123", layout)
    with pytest.raises(ValueError, match="vocabulary"):
        codec.encode(sure, codec.Layout(2, (1.0,), 1 << 20))
    with pytest.raises(KeyError):
        codec.at(read, (1.0,), 2.0, 2)
    with pytest.raises(ValueError, match="2 tokens are kept"):
        codec.at(read, (1.0,), 1.0, 3)
