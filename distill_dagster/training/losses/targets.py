"""What a teacher says about rows of a batch, tile by tile: kept top-k with a rest, or a teacher that is asked now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from distill_dagster.models.placing import placed
from distill_dagster.training.losses.tiles import block_rows

#: Token ids R × K (None: the whole vocabulary, in order), log-probabilities R × K, and of the rest, R (None: no rest).
Tile = tuple[torch.Tensor | None, torch.Tensor, torch.Tensor | None]


class Targets(Protocol):
    """A teacher's distribution at every row of a batch, at the temperature of the loss."""

    def tile(self, start: int, stop: int) -> Tile:
        """The distributions of rows `start` to `stop`."""
        ...


@dataclass(frozen=True)
class TopK:
    """Kept signals: the likeliest tokens and the mass of all others.

    Attributes:
        ids: Token ids, R × K, each once in its row.
        log_probs: Their log-probabilities, R × K.
        log_rest: Log of the mass of all other tokens, R.
    """

    ids: torch.Tensor
    log_probs: torch.Tensor
    log_rest: torch.Tensor

    def to(self, device: torch.device) -> TopK:
        """The same on a device."""
        return TopK(*(placed(part, device) for part in (self.ids, self.log_probs, self.log_rest)))

    def tile(self, start: int, stop: int) -> Tile:
        """The distributions of rows `start` to `stop`."""
        part = slice(start, stop)
        return self.ids[part], self.log_probs[part], self.log_rest[part]


@dataclass(frozen=True)
class Live:
    """A teacher in memory, of which only the last hidden states are kept; its output layer runs a tile at a time.

    Attributes:
        hidden: The teacher's last hidden states, R × H'; its logits where `head` is None.
        head: Its output layer, V' × H'; only the first `vocabulary` rows are used.
        bias: That layer's bias, V', or None.
        vocabulary: How many tokens the student knows as well.
        temperature: What logits are divided by.
        k: How many tokens to keep, the rest as one bucket; 0 keeps all.
    """

    hidden: torch.Tensor
    head: torch.Tensor | None
    vocabulary: int
    bias: torch.Tensor | None = None
    temperature: float = 1.0
    k: int = 0

    @torch.no_grad()
    def tile(self, start: int, stop: int) -> Tile:
        """The distributions of rows `start` to `stop`."""
        states, size = self.hidden[start:stop], self.vocabulary
        if self.head is None:
            logits = _wide(states[:, :size])
        else:
            logits = _wide(states.to(self.head.dtype) @ self.head[:size].t())
            if self.bias is not None:
                logits += self.bias[:size]
        if not 0 < self.k < size:
            log_p = torch.empty_like(logits) if self.head is None else logits  # Given logits are not ours to spoil.
            for part in _blocks(logits):
                log_p[part] = self._log_probs(logits[part])
            return None, log_p, None
        found = [top_k(self._log_probs(logits[part]), self.k) for part in _blocks(logits)]
        ids, values, rest = (torch.cat(parts) for parts in zip(*found, strict=True))
        return ids, values, rest

    def _log_probs(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(logits / self.temperature if self.temperature != 1 else logits, -1)


def _blocks(values: torch.Tensor) -> Iterator[slice]:
    rows = block_rows(values)
    return (slice(start, start + rows) for start in range(0, max(1, len(values)), rows))


def _wide(values: torch.Tensor) -> torch.Tensor:
    """The values in fp32 at least."""
    return values if values.dtype == torch.float64 else values.float()


def top_k(log_p: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The k likeliest tokens of each row, likeliest first, and the log of the mass of all others; spoils `log_p`.

    The rest is summed, not taken as one minus the others: where a teacher is sure, the difference is only rounding.
    """
    values, ids = log_p.topk(k, -1)
    log_p.scatter_(1, ids, float("-inf"))
    return ids, values, torch.logsumexp(log_p, -1)
