"""Top-k log-probabilities in a few bytes a token.

A position takes, for k tokens: 2 bytes an id (and 2 bits more where the vocabulary is larger than 65,536), 1 byte a
log-probability, and 2 bytes (fp16) for the log of the mass of all other tokens, at each temperature. Steps are 1/16
nat down to -12, and 1/2 nat from there to -43.5, which a high temperature brings up again. The mass of the kept tokens
is known from the rest's, so they are scaled to it again and the distribution stays one. By Hoeffding's lemma the
divergence between what was said and what is read is at most (1/16)² / 8 = 0.49e-3 nats where steps are fine, and it
falls with the square of the temperature. Fields lie one after the other, so that like stands beside like and zstd
finds what repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Bumped when the bytes change.
CODEC = 1
#: Steps a nat above and below a log-probability of -DEPTH.
FINE, COARSE, DEPTH = 16, 2, 12
#: Largest vocabulary: 18 bits an id.
LARGEST = 1 << 18


@dataclass(frozen=True)
class Layout:
    """How blobs are written: the same for all of a store.

    Attributes:
        k: Tokens a position.
        temperatures: Temperatures at which the rest is known.
        vocabulary: Ids are below this.
    """

    k: int
    temperatures: tuple[float, ...]
    vocabulary: int

    @property
    def high(self) -> int:
        """Bytes a position for the ids' bits beyond 16."""
        return -(-self.k // 4) if self.vocabulary > 1 << 16 else 0

    @property
    def width(self) -> int:
        """Bytes a position."""
        return 3 * self.k + self.high + 2 * len(self.temperatures)


@dataclass(frozen=True)
class Signal:
    """What a teacher says about n positions.

    Attributes:
        ids: Token ids, likeliest first, n × k.
        log_probs: Their log-probabilities at temperature 1, n × k.
        log_rest: Log of the mass of all other tokens at each temperature, n × number of temperatures.
    """

    ids: np.ndarray
    log_probs: np.ndarray
    log_rest: np.ndarray


def encode(signal: Signal, layout: Layout) -> bytes:
    """A blob of `layout.width` bytes a position."""
    if not 0 < layout.vocabulary <= LARGEST:
        raise ValueError(f"a vocabulary of {layout.vocabulary:,} tokens; at most {LARGEST:,} have an id here")
    ids = signal.ids.astype(np.uint32)
    parts = [(ids & 0xFFFF).astype("<u2").tobytes()]
    if layout.high:
        padded = np.zeros((len(ids), layout.high * 4), np.uint8)
        padded[:, : layout.k] = ids >> 16
        four = padded.reshape(len(ids), layout.high, 4)
        parts.append((four[..., 0] | four[..., 1] << 2 | four[..., 2] << 4 | four[..., 3] << 6).tobytes())
    below = np.maximum(-signal.log_probs.astype(np.float64), 0)
    codes = np.where(below < DEPTH, below * FINE, DEPTH * FINE + (below - DEPTH) * COARSE)
    parts.append(np.minimum(np.rint(codes), 255).astype(np.uint8).tobytes())
    with np.errstate(over="ignore"):
        parts.append(signal.log_rest.astype("<f2").tobytes())
    return b"".join(parts)


def decode(blob: bytes, layout: Layout) -> Signal:
    """The positions of a blob, as they were rounded; see `at` for a distribution.

    Raises:
        ValueError: The blob's length is no whole number of positions.
    """
    if len(blob) % layout.width:
        raise ValueError(f"{len(blob)} bytes are no whole number of positions of {layout.width} bytes")
    count, k, place = len(blob) // layout.width, layout.k, 0

    def take(dtype: str, *shape: int) -> np.ndarray:
        nonlocal place
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        found = np.frombuffer(blob, dtype, offset=place, count=int(np.prod(shape))).reshape(shape)
        place += size
        return found

    ids = take("<u2", count, k).astype(np.int64)
    if layout.high:
        packed = take("u1", count, layout.high)
        four = np.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], -1).reshape(count, layout.high * 4)
        ids |= four[:, :k].astype(np.int64) << 16
    codes = take("u1", count, k).astype(np.float32)
    log_probs = -np.where(codes < DEPTH * FINE, codes / FINE, DEPTH + (codes - DEPTH * FINE) / COARSE)
    return Signal(ids, log_probs, take("<f2", count, len(layout.temperatures)).astype(np.float32))


def at(signal: Signal, temperatures: Sequence[float], temperature: float, k: int) -> Signal:
    """The distribution at one temperature, with k tokens apart: `log_rest` has one column.

    Raises:
        KeyError: The rest is not known at this temperature.
        ValueError: Fewer than k tokens were kept.
    """
    if temperature not in temperatures:
        raise KeyError(temperature)
    if k > signal.ids.shape[1]:
        raise ValueError(f"{signal.ids.shape[1]} tokens are kept, not {k}")
    log_rest = signal.log_rest[:, list(temperatures).index(temperature)].astype(np.float64)
    hot = signal.log_probs.astype(np.float64) / temperature
    inside = np.log(-np.expm1(np.minimum(log_rest, -1e-12)))
    hot += (inside - np.log(np.exp(hot - hot[:, :1]).sum(1)) - hot[:, 0])[:, None]
    rest = log_rest
    if k < hot.shape[1]:
        with np.errstate(divide="ignore"):
            rest = np.log(np.exp(hot[:, k:]).sum(1) + np.exp(log_rest))
    return Signal(signal.ids[:, :k], hot[:, :k].astype(np.float32), rest[:, None].astype(np.float32))
