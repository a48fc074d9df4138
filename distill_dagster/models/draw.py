"""Initial weights drawn by name from a counter-based generator.

They depend on seed, name and shape only: not on the machine, the thread count or the order in which a library builds
its layers.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def normal(seed: int, name: str, shape: tuple[int, ...], spread: float) -> torch.Tensor:
    """Values of a normal distribution with standard deviation `spread`, fp32."""
    import numpy
    import torch

    word = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16]
    draw = numpy.random.Generator(numpy.random.Philox(key=int.from_bytes(word, "big")))
    return torch.from_numpy((draw.standard_normal(shape) * spread).astype(numpy.float32))
