"""Moving tensors from the CPU to where a model computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def placed(part: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device.

    A copy from pageable memory to a GPU waits until all that was asked of the GPU before is done; one from pinned
    memory is queued behind it, so the next kernels can be launched meanwhile.
    """
    if device.type != "cuda" or part.device.type != "cpu":
        return part.to(device)
    # An expanded tensor has fewer bytes than numbers, and is not pinned.
    return part.contiguous().pin_memory().to(device, non_blocking=True)
