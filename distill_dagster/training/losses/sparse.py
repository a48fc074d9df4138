"""One loss for every divergence, from hidden states to gradients without ever holding all logits.

The rows that carry a loss are chosen beforehand, so prompts and padding cost nothing. For a tile of them there is one
matrix product into a buffer, the buffer is turned into the gradient of its logits in place, and two more products give
the gradients of hidden states and of the output layer (only where that is trained). The teacher's distribution is a
few tokens and one bucket for all others; with every token kept it is the dense divergence.

On a GPU with Triton kept tokens take the kernels of `fused` where DISTILL_FUSED=1 stands in the environment. Not by
default: they agree with torch in Triton's interpreter, and have run on no GPU yet.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from distill_dagster.training.losses.divergences import Divergence
from distill_dagster.training.losses.targets import Targets, Tile, TopK
from distill_dagster.training.losses.tiles import add_product, block_rows, product
from distill_dagster.training.losses.tiles import tile_bytes as default_tile

#: Kinds of devices whose tiles go through kernels; a test adds the CPU, for Triton's interpreter.
KERNELS_ON = {"cuda"} if os.environ.get("DISTILL_FUSED") == "1" else set[str]()


@dataclass(frozen=True)
class Mix:
    """What the loss is made of: (1 − hard) · T² · D(teacher, student at temperature T) + hard · cross-entropy.

    The factor T² keeps the gradient's size when T changes (Hinton et al. 2015); it is in the value and the gradient.

    Attributes:
        divergence: D.
        temperature: T, above 0; the cross-entropy is always at 1.
        hard: Share of the cross-entropy with the labels, from 0 to 1.
    """

    divergence: Divergence = Divergence()
    temperature: float = 1.0
    hard: float = 0.0


@dataclass(frozen=True)
class Rows:
    """The rows of a batch: labels and weights, R each, and what weighted sums are divided by.

    `total` is the sum of the weights of the whole optimizer step, on all devices, so that accumulation agrees with
    one large batch.
    """

    labels: torch.Tensor
    weights: torch.Tensor
    total: torch.Tensor


def sparse_loss(
    hidden: torch.Tensor,
    head: torch.Tensor | None,
    rows: Rows,
    targets: Targets,
    mix: Mix,
    *,
    bias: torch.Tensor | None = None,
    tile_bytes: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The mixed loss of a batch.

    Args:
        hidden: The student's last hidden states at the rows, R × H; or its logits R × V where `head` is None.
        head: The output layer, V × H. Its dtype is that of the matrix products.
        rows: Labels, weights, and their global sum.
        targets: What the teacher says.
        mix: Divergence, temperature and hard share.
        bias: Of the output layer, V, or None.
        tile_bytes: Memory for the logits of a tile; by default what `tiles` gives.

    Returns:
        The loss, with its gradient; and without gradient the divergence (times T²) and the cross-entropy, each the
        weighted mean in nats a row. The cross-entropy is 0 where `mix.hard` is.
    """
    if isinstance(targets, TopK):  # Stored signals are read on the CPU.
        targets = targets.to(hidden.device)
    needs = torch.is_grad_enabled()
    wanted = tuple(needs and part is not None and part.requires_grad for part in (hidden, head, bias))
    return _SparseLoss.apply(hidden, head, bias, _Work(rows, targets, mix, tile_bytes, wanted))  # pyright: ignore


@dataclass(frozen=True)
class _Work:
    rows: Rows
    targets: Targets
    mix: Mix
    tile_bytes: int | None
    wanted: tuple[bool, ...]


class _SparseLoss(torch.autograd.Function):
    """Gradients are made in the forward pass, so no logits outlive their tile; backward scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, head: Any, bias: Any, work: _Work) -> tuple[torch.Tensor, ...]:
        rows, mix = work.rows, work.mix
        for_hidden, for_head, for_bias = work.wanted
        size = hidden.shape[1] if head is None else head.shape[0]
        step = _rows_of_a_tile(hidden, head, size, work.tile_bytes)
        kept = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        shares = (rows.weights / rows.total).to(kept)
        soft = hard = torch.zeros((), dtype=torch.float64, device=hidden.device)
        buffer = hidden.new_empty(min(step, len(hidden)), size, dtype=kept)
        grad_hidden = torch.empty_like(hidden, dtype=kept) if for_hidden else None
        grad_head = torch.empty_like(head, dtype=kept) if for_head and head is not None else None
        grad_bias = torch.zeros_like(bias, dtype=kept) if for_bias else None
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            states = hidden[part]
            logits = buffer[: len(states)]
            _logits(states, head, bias, logits)
            share = shares[part]
            given, wanted = work.targets.tile(start, start + len(logits)), any(work.wanted)
            kernels = _kernels(logits) if given[0] is not None else None
            made = logits
            if kernels is None:
                value, cross = _by_blocks(logits, rows.labels[part], given, mix, share, wanted)
            else:
                # The bias's gradient is a sum over rows, which is taken before anything is rounded.
                dtype = kept if head is None or for_bias else head.dtype
                value, cross, made = _by_kernels(kernels, logits, rows.labels[part], given, mix, share, wanted, dtype)
            soft, hard = soft + (value * share).sum(), hard + (cross * share).sum()
            if grad_bias is not None:
                grad_bias += made.sum(0)
            if head is None:
                if grad_hidden is not None:
                    grad_hidden[part] = made
                continue
            narrow = made.to(head.dtype)
            if grad_hidden is not None:
                product(narrow, head, grad_hidden[part])
            if grad_head is not None:
                add_product(grad_head, narrow.t(), states.to(head.dtype), start == 0)
        if grad_head is not None and not len(hidden):
            grad_head.zero_()
        ctx.grads = (grad_hidden, grad_head, grad_bias)
        ctx.dtypes = tuple(None if part is None else part.dtype for part in (hidden, head, bias))
        soft, hard = soft.to(kept), hard.to(kept)
        loss = (1 - mix.hard) * soft + mix.hard * hard
        ctx.mark_non_differentiable(soft, hard)
        return loss, soft, hard

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor, *unused: Any) -> tuple[Any, ...]:  # pyright: ignore
        if ctx.grads is None:
            raise RuntimeError("the gradients of this loss were taken already; compute it again")
        grads, ctx.grads = ctx.grads, None
        same = scale.device.type == "cpu" and scale.item() == 1
        done = [
            grad if grad is None else grad.to(dtype) if same else _scaled(grad, scale, dtype)
            for grad, dtype in zip(grads, ctx.dtypes, strict=True)
        ]
        return (*done, None)


def _scaled(grad: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The gradient times a number, in a dtype; spoils `grad`."""
    if grad.is_cuda and grad.dtype != dtype:  # Multiplied and rounded in one pass over it.
        return torch.mul(grad, scale, out=torch.empty_like(grad, dtype=dtype))
    return grad.mul_(scale).to(dtype)


def _kernels(logits: torch.Tensor) -> Any:
    """The module `fused` where it serves such logits, else None."""
    if logits.device.type not in KERNELS_ON or logits.dtype != torch.float32:
        return None
    return _loaded(logits.device)


@cache
def _loaded(device: torch.device) -> Any:
    from distill_dagster.training.losses import fused

    return fused if fused.works(device) else None


def _rows_of_a_tile(hidden: torch.Tensor, head: torch.Tensor | None, size: int, tile_bytes: int | None) -> int:
    if tile_bytes is None:
        tile_bytes = default_tile(hidden.device, 0 if head is None else head.numel() * 4)
    return max(1, min(len(hidden), tile_bytes // (size * max(4, hidden.element_size()))))


def _logits(states: torch.Tensor, head: torch.Tensor | None, bias: torch.Tensor | None, out: torch.Tensor) -> None:
    if head is None:
        out.copy_(states)
    else:
        product(states.to(head.dtype), head.t(), out)
    if bias is not None:
        out += bias


def _by_blocks(
    logits: torch.Tensor, labels: torch.Tensor, given: Tile, mix: Mix, share: torch.Tensor, wanted: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """`_to_gradient`, some rows after the other: what lies between two passes then stays in the cache, and is small."""
    rows = block_rows(logits)
    if rows >= len(logits):
        return _to_gradient(logits, labels, given, mix, share, wanted)
    found = []
    for start in range(0, len(logits), rows):
        part = slice(start, start + rows)
        ids, log_p, log_rest = (None if entry is None else entry[part] for entry in given)
        assert log_p is not None
        found.append(_to_gradient(logits[part], labels[part], (ids, log_p, log_rest), mix, share[part], wanted))
    values, crosses = zip(*found, strict=True)
    return torch.cat(values), torch.cat(crosses)


def _to_gradient(
    logits: torch.Tensor, labels: torch.Tensor, given: Tile, mix: Mix, share: torch.Tensor, wanted: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn a tile's logits into the gradient of the loss with respect to them, in place.

    Returns:
        Of each row T² times the divergence, and the cross-entropy.
    """
    hot = mix.temperature
    label = labels[:, None]
    soft_share, hard_share = share * ((1 - mix.hard) * hot), share * mix.hard
    cross = torch.zeros_like(share)
    plain: torch.Tensor | None = None
    said = logits.gather(1, label)[:, 0]
    if mix.hard and hot != 1:
        # The label's term is at temperature 1, so its probabilities are another set.
        peak = logits.amax(1, keepdim=True)
        plain = (logits - peak).exp_()
        mass = plain.sum(1)
        cross = peak[:, 0] + mass.log() - said
        plain.mul_((hard_share / mass)[:, None])
    if hot != 1:
        logits.div_(hot)
    ids, log_p, log_rest = given
    log_p = log_p.to(logits)
    if ids is None:
        value, mean = _dense(logits, log_p, mix.divergence, soft_share, hard_share if hot == 1 else None)
    else:
        assert log_rest is not None
        ids, rest = ids.to(logits.device), log_rest.to(logits)
        value, mean = _buckets(
            logits, ids, log_p, rest, mix.divergence, soft_share, hard_share if hot == 1 else None, wanted
        )
    if mix.hard and hot == 1:
        cross = mean - said
    if mix.hard and wanted:
        if plain is not None:
            logits.add_(plain)
        logits.scatter_(1, label, logits.gather(1, label) - hard_share[:, None])
    return value * hot**2, cross


def _by_kernels(
    kernels: Any,
    logits: torch.Tensor,
    labels: torch.Tensor,
    given: Tile,
    mix: Mix,
    share: torch.Tensor,
    wanted: bool,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `_to_gradient` and `_buckets` do, in two passes over a tile; spoils `logits`.

    The rest's shares are taken from its own log-sum-exp. So they are right even where its mass is nothing in fp32
    beside the kept tokens', where the torch path gives 0.

    Returns:
        Of each row T² times the divergence, and the cross-entropy; the gradient in `dtype` where it is `wanted`.
    """
    ids, log_p, log_rest = given
    assert ids is not None and log_rest is not None
    ids, hot, label = ids.to(logits.device), mix.temperature, labels[:, None]
    top, said = logits.gather(1, ids), logits.gather(1, label)[:, 0]
    logits.scatter_(1, ids, float("-inf"))
    rest, plain_rest = kernels.log_sums(logits, hot, mix.hard > 0 and hot != 1)
    buckets = torch.cat((top / hot, rest[:, None]), 1)
    normaliser = torch.logsumexp(buckets, 1)
    teacher = torch.cat((log_p.to(logits), log_rest.to(logits)[:, None]), 1)
    value, gradient = mix.divergence(teacher, buckets - normaliser[:, None])
    plain, cross = normaliser, torch.zeros_like(share)
    if mix.hard:
        if hot != 1:
            plain = torch.logsumexp(torch.cat((top, plain_rest[:, None]), 1), 1)
        cross = plain - said
    if not wanted:
        return value * hot**2, cross, logits
    gradient = gradient * (share * ((1 - mix.hard) * hot))[:, None]
    empty, none = rest == float("-inf"), torch.zeros_like(rest)
    rest, inside = torch.where(empty, none, rest), torch.where(empty, none, gradient[:, -1])
    kept, hard_share = gradient[:, :-1], share * mix.hard
    made = logits if logits.dtype == dtype else torch.empty_like(logits, dtype=dtype)
    kernels.write(logits, made, hot, (rest, inside), (plain, hard_share) if mix.hard else None)
    if not mix.hard:
        return value * hot**2, cross, made.scatter_(1, ids, kept.to(dtype))
    kept = kept + (top - plain[:, None]).exp() * hard_share[:, None]
    hit = ids == label
    at_label = (said / hot - rest).exp() * inside + (said - plain).exp() * hard_share
    at_label = torch.where(hit.any(1), torch.where(hit, kept, 0.0).sum(1), at_label) - hard_share
    made.scatter_(1, ids, kept.to(dtype)).scatter_(1, label, at_label[:, None].to(dtype))
    return value * hot**2, cross, made


def _dense(
    logits: torch.Tensor,
    log_p: torch.Tensor,
    divergence: Divergence,
    soft_share: torch.Tensor,
    hard_share: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Every token a bucket: the divergence, and the log of the student's normaliser."""
    normaliser = torch.logsumexp(logits, 1)
    log_q = logits.sub_(normaliser[:, None])
    value, gradient = divergence(log_p, log_q)
    gradient.mul_(soft_share[:, None])
    if hard_share is not None:
        gradient.addcmul_(log_q.exp_(), hard_share[:, None])
    logits.copy_(gradient)
    return value, normaliser


def _buckets(
    logits: torch.Tensor,
    ids: torch.Tensor,
    log_p: torch.Tensor,
    log_rest: torch.Tensor,
    divergence: Divergence,
    soft_share: torch.Tensor,
    hard_share: torch.Tensor | None,
    wanted: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """K tokens and the rest: the divergence, and the log of the student's normaliser."""
    top = logits.gather(1, ids)
    peak = logits.amax(1, keepdim=True)
    logits.sub_(peak).exp_()
    # With the kept tokens out, the sum is the rest's own: one minus the others would only be rounding.
    logits.scatter_(1, ids, 0.0)
    rest = logits.sum(1)
    mass = rest + (top - peak).exp().sum(1)
    normaliser = peak[:, 0] + mass.log()
    log_q = torch.cat((top - normaliser[:, None], (rest.log() - mass.log())[:, None]), 1)
    value, gradient = divergence(torch.cat((log_p, log_rest[:, None]), 1), log_q)
    if not wanted:
        return value, normaliser
    inside = gradient[:, -1] * soft_share / torch.where(rest > 0, rest, torch.ones_like(rest))
    kept = gradient[:, :-1] * soft_share[:, None]
    if hard_share is not None:
        inside = inside + hard_share / mass
        kept = kept + log_q[:, :-1].exp() * hard_share[:, None]
    logits.mul_(inside[:, None]).scatter_(1, ids, kept)
    return value, normaliser
