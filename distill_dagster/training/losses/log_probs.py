"""Log-probabilities of the labels from hidden states, with gradients, a tile of logits at a time.

The gradient of a sequence's log-probability is scaled by what a loss makes of the whole sequence (DPO, SimPO), so it is
not known when the logits are there. Only the normaliser of each row is kept; the backward pass makes each tile's logits
again: four matrix products in all, and never R × V numbers in memory.
"""

from __future__ import annotations

from typing import Any

import torch

from distill_dagster.training.losses.tiles import add_product
from distill_dagster.training.losses.tiles import tile_bytes as default_tile

#: Bytes of logits that are held at a time on a CPU.
TILE = 64 << 20

Head = tuple[torch.Tensor, torch.Tensor | None]


def log_probs(
    hidden: torch.Tensor, head: Head | None, labels: torch.Tensor, tile_bytes: int | None = None
) -> torch.Tensor:
    """Log-probability of each label.

    Args:
        hidden: Last hidden states, R × H; or logits, R × V, where `head` is None.
        head: Output layer, V × H in the precision of its matrix products, and its bias, V, or None.
        labels: Token ids, R.
        tile_bytes: Memory for the logits of a tile.

    Returns:
        R values in nats, fp32 (fp64 where `hidden` is).
    """
    if head is None:
        logits = _wide(hidden)
        return logits.gather(1, labels[:, None])[:, 0] - torch.logsumexp(logits, 1)
    weight, bias = head
    if tile_bytes is None:
        tile_bytes = TILE if hidden.device.type == "cpu" else default_tile(hidden.device, 0)
    rows = max(1, tile_bytes // (len(weight) * max(4, hidden.element_size())))
    return _LogProbs.apply(hidden, weight, bias, labels, rows)  # pyright: ignore[reportReturnType]


def _wide(values: torch.Tensor) -> torch.Tensor:
    """The values in fp32 at least."""
    return values if values.dtype == torch.float64 else values.float()


def _logits(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    logits = _wide(states.to(weight.dtype) @ weight.t())
    return logits if bias is None else logits + bias


class _LogProbs(torch.autograd.Function):
    """A value a row; nothing a tile holds outlives it."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: Any, labels: torch.Tensor, rows: int
    ) -> torch.Tensor:
        kept = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        normalisers, said = (torch.empty(len(hidden), dtype=kept, device=hidden.device) for _ in range(2))
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits = _logits(hidden[part], weight, bias)
            normalisers[part] = torch.logsumexp(logits, 1)
            said[part] = logits.gather(1, labels[part, None])[:, 0]
        ctx.save_for_backward(hidden, weight, bias, labels, normalisers)
        ctx.rows = rows
        return said - normalisers

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore
        hidden, weight, bias, labels, normalisers = ctx.saved_tensors
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        kept = normalisers.dtype
        grad_hidden = torch.empty_like(hidden, dtype=kept) if for_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=kept) if for_weight else None
        grad_bias = torch.zeros_like(bias, dtype=kept) if for_bias else None
        for start in range(0, len(hidden), ctx.rows):
            part = slice(start, start + ctx.rows)
            states, label, share = hidden[part].to(weight.dtype), labels[part, None], scale[part, None].to(kept)
            # d log p(label) / d logits = one at the label, less the student's own probabilities.
            logits = _logits(states, weight, bias).sub_(normalisers[part, None]).exp_().mul_(-share)
            logits.scatter_(1, label, logits.gather(1, label) + share)
            narrow = logits.to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = (narrow @ weight).to(kept)
            if grad_weight is not None:
                if hidden.is_cuda:
                    add_product(grad_weight, narrow.t(), states, False)
                else:
                    grad_weight += narrow.t() @ states
            if grad_bias is not None:
                grad_bias += logits.sum(0)
        made = zip((grad_hidden, grad_weight, grad_bias), (hidden, weight, bias), strict=True)
        return (*(None if grad is None else grad.to(part.dtype) for grad, part in made), None, None)
