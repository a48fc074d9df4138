"""How many rows of logits are held at a time, and their matrix products with the output layer.

Products are in the layer's precision and sums in fp32 or better. A GPU's tensor cores add up in fp32 anyway, so there a
bf16 product is asked for in fp32: it is neither rounded on the way nor copied.
"""

from __future__ import annotations

from functools import cache

import torch

#: On a CPU a tile's logits take half of what the output layer takes, within these bounds (bytes): small tiles stay in
#: the cache, but each tile reads the whole layer again.
SMALLEST, LARGEST = 16 << 20, 256 << 20
#: On a GPU they take this share of its memory, within these bounds: the same on every run, whatever else lies there.
GPU_SHARE, GPU_SMALLEST, GPU_LARGEST = 1 / 256, 64 << 20, 1 << 30
#: So many bytes of a tile's logits at a time are turned into a gradient. That takes about ten copies of them, which a
#: CPU's last cache has room for.
BLOCK, GPU_BLOCK = 1 << 20, 128 << 20


def tile_bytes(device: torch.device, layer: int) -> int:
    """Memory for the logits of a tile, beside an output layer of so many bytes in fp32."""
    if device.type != "cuda":
        return min(max(layer // 2, SMALLEST), LARGEST)
    whole = torch.cuda.get_device_properties(device).total_memory
    return min(max(int(whole * GPU_SHARE), GPU_SMALLEST), GPU_LARGEST)


def block_rows(values: torch.Tensor) -> int:
    """How many rows of a tile are worked on at a time."""
    block = GPU_BLOCK if values.is_cuda else BLOCK
    return max(1, block // (values.shape[1] * values.element_size()))


def product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """out = left · right, which have one dtype."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    elif _widens(left):
        torch.mm(left, right, out_dtype=out.dtype, out=out)
    else:
        out.copy_(left @ right)


def add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, first: bool) -> None:
    """total += left · right, which have one dtype; the first product overwrites."""
    if left.dtype == total.dtype:
        total.addmm_(left, right, beta=0 if first else 1)
    elif first:
        product(left, right, total)
    elif _widens(left):
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right


def _widens(part: torch.Tensor) -> bool:
    return part.is_cuda and part.dtype in (torch.bfloat16, torch.float16) and _known(part.device, part.dtype)


@cache
def _known(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch gives the product of two narrow matrices in fp32, into memory of the caller's."""
    narrow = torch.eye(16, dtype=dtype, device=device)
    wide = torch.zeros(16, 16, device=device)
    try:
        torch.mm(narrow, narrow, out_dtype=torch.float32, out=wide)
        torch.addmm(wide, narrow, narrow, out_dtype=torch.float32, out=wide)
    except (TypeError, RuntimeError):
        return False
    return bool((wide == 2 * narrow).all())
