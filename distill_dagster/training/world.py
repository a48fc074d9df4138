"""The processes that share a training run: one by default, several under torchrun.

Each holds the whole model, sees the same batches in the same order, and computes its own of every step; gradients are
added up before each update, so all hold the same weights. Only the first writes and reports.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from distill_dagster.errors import TrainingError

#: Gradients travel in buckets of this many bytes.
BUCKET = 64 << 20


def device(wanted: str, local_rank: int = 0) -> torch.device:
    """What `device: auto|cpu|cuda` means on this machine.

    Raises:
        TrainingError: `cuda`, but there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrainingError("training.device", "cuda: torch sees no GPU here.", "Set `device: auto`, or install CUDA.")
    # Without it cuBLAS is not deterministic; it counts from the first matrix product on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


@dataclass(frozen=True)
class World:
    """This process among those that train one model.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        device: Where it computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @staticmethod
    def join(wanted: str = "auto") -> World:
        """Meet the others, as the variables that torchrun sets say; alone where there are none."""
        size, rank = int(os.environ.get("WORLD_SIZE") or 1), int(os.environ.get("RANK") or 0)
        place = device(wanted, int(os.environ.get("LOCAL_RANK") or 0))
        if size > 1:
            import torch.distributed

            if place.type == "cuda":
                torch.cuda.set_device(place)  # NCCL's barriers happen on the current GPU.
            torch.distributed.init_process_group("nccl" if place.type == "cuda" else "gloo", world_size=size, rank=rank)
        return World(rank, size, place)

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def own(self, count: int) -> range:
        """Which of `count` pieces of work are this process's."""
        return range(self.rank, count, self.size)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over all processes."""
        if self.size == 1:
            return list(values)
        whole = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(whole)
        return whole.tolist()

    @torch.no_grad()
    def add_gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        """Add up the gradients of all processes; a process that had nothing to learn from adds 0."""
        if self.size == 1:
            return
        bucket: list[torch.Tensor] = []
        held = 0
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            held += parameter.grad.nbytes
            if held >= BUCKET:
                _add(bucket)
                bucket, held = [], 0
        if bucket:
            _add(bucket)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            torch.distributed.barrier()


def _add(gradients: list[torch.Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, whole in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(whole.view_as(gradient))
