"""The sparse loss's passes over a tile of logits as Triton kernels, for a GPU.

In torch the way from logits to their gradient takes about ten passes over R × V numbers, which last longer than the
matrix products around them. Here it takes two: one sums what the kept tokens leave, one writes the gradient in the
precision that the products read. All sums are in fp32 and in one order, so a step taken twice gives the same bits.
Kept tokens are taken out of a row beforehand, by minus infinity; their gradients are set afterwards.

The kernels need an fp32 tile whose rows are contiguous. Without Triton, which torch for a CPU lacks, `works` says no.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import triton  # pyright: ignore[reportMissingImports]
    import triton.language as tl  # pyright: ignore[reportMissingImports]
else:
    try:
        import triton
        import triton.language as tl
    except ImportError:
        triton = tl = None

#: Makes a kernel of a function, where there is Triton.
kernel = triton.jit if triton is not None else lambda function: function

#: Numbers a program reads at a time, and its warps.
BLOCK, WARPS = 4096, 8


@kernel
def _sum_rows(logits, sums, plain, stride, scale, SIZE: tl.constexpr, BOTH: tl.constexpr, BLOCK: tl.constexpr):
    """A row's log-sum-exp of logits · scale, and where BOTH of the logits themselves; minus infinity where all are."""
    row = tl.program_id(0).to(tl.int64)  # In 32 bits the offset of a row ends at 2³¹ numbers.
    lane = tl.arange(0, BLOCK)
    peak = tl.full((), float("-inf"), tl.float32)
    mass = tl.zeros((), tl.float32)
    plain_mass = tl.zeros((), tl.float32)
    for start in range(0, SIZE, BLOCK):
        some = tl.load(logits + row * stride + start + lane, mask=start + lane < SIZE, other=float("-inf"))
        top = tl.maximum(peak, tl.max(some, 0))
        # Minus infinity less itself is no number.
        base = tl.where(top == float("-inf"), 0.0, top)
        mass = mass * tl.exp((peak - base) * scale) + tl.sum(tl.exp((some - base) * scale), 0)
        if BOTH:
            plain_mass = plain_mass * tl.exp(peak - base) + tl.sum(tl.exp(some - base), 0)
        peak = top
    tl.store(sums + row, peak * scale + tl.log(mass))
    if BOTH:
        tl.store(plain + row, peak + tl.log(plain_mass))


@kernel
def _write_rows(
    logits, out, sums, inside, plain, share, size, stride, to, scale, BOTH: tl.constexpr, BLOCK: tl.constexpr
):
    """exp(logits · scale − sums) · inside of a block of a row, and where BOTH + exp(logits − plain) · share."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    some = tl.load(logits + row * stride + lane, mask=lane < size, other=float("-inf"))
    made = tl.exp(some * scale - tl.load(sums + row)) * tl.load(inside + row)
    if BOTH:
        made += tl.exp(some - tl.load(plain + row)) * tl.load(share + row)
    tl.store(out + row * to + lane, made.to(out.dtype.element_ty), mask=lane < size)


def log_sums(logits: torch.Tensor, hot: float, both: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's log-sum-exp at temperature `hot`, and at 1 where `both` are asked for (else what it has); R each.

    Args:
        logits: R × V, fp32.
        hot: The temperature.
        both: Whether the second is needed.
    """
    rows, size = logits.shape
    sums = logits.new_empty(rows)
    plain = logits.new_empty(rows) if both else sums
    if rows:
        block = _block(size)
        with torch.cuda.device_of(logits):
            _sum_rows[(rows,)](  # pyright: ignore[reportIndexIssue]
                logits, sums, plain, logits.stride(0), 1 / hot, SIZE=size, BOTH=both, BLOCK=block, num_warps=WARPS
            )
    return sums, plain


def write(
    logits: torch.Tensor,
    out: torch.Tensor,
    hot: float,
    soft: tuple[torch.Tensor, torch.Tensor],
    hard: tuple[torch.Tensor, torch.Tensor] | None,
) -> None:
    """out = exp(logits / hot − normaliser) · share, and the same of `hard` at temperature 1 on top.

    Args:
        logits: R × V, fp32.
        out: R × V in any precision; may be `logits`.
        hot: The temperature of `soft`.
        soft: Normalisers and shares, R each; finite.
        hard: The same at temperature 1, or None.
    """
    rows, size = logits.shape
    if not rows:
        return
    plain, share = hard or soft
    block = _block(size)
    with torch.cuda.device_of(logits):
        _write_rows[(rows, triton.cdiv(size, block))](  # pyright: ignore[reportIndexIssue]
            logits, out, *soft, plain, share, size, logits.stride(0), out.stride(0), 1 / hot,
            BOTH=hard is not None, BLOCK=block, num_warps=WARPS,
        )  # fmt: skip


def _block(size: int) -> int:
    return min(BLOCK, max(256, triton.next_power_of_2(size)))


def works(device: Any) -> bool:
    """Whether kernels compile and run there: Triton needs a C compiler, which slim containers lack."""
    try:
        tile = torch.zeros(2, 3, device=device)
        sums, _ = log_sums(tile, 1.0, False)
        write(tile, tile, 1.0, (sums, torch.ones_like(sums)), None)
        return bool((tile - 1 / 3).abs().max() < 1e-6)
    except Exception:
        return False
