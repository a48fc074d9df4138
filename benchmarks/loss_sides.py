"""The sides of `benchmarks/loss.py`: the inputs, each side's loss, and a worker that measures one step at a time."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

K, BETA = 16, 0.5
OURS = ("stored", "live top 16", "live")
#: What a step cannot do without: the student's products with its output layer at the rows that count, and nothing else.
FLOOR = "products alone"


class Inputs:
    """The same numbers in every worker. Half of the rows are masked."""

    def __init__(self, rows: int, vocabulary: int, width: int, device: str = "cpu", dtype: str = "float32") -> None:
        import torch

        made = torch.Generator(device).manual_seed(vocabulary)

        def normal(*shape: int, spread: float = 1.0) -> Any:
            return (torch.randn(*shape, generator=made, device=device) * spread).to(getattr(torch, dtype))

        self.rows, self.vocabulary, self.device = rows, vocabulary, device
        self.hidden = normal(1, rows, width).requires_grad_()
        self.head = normal(vocabulary, width, spread=2 / width**0.5).requires_grad_()
        self.teacher_hidden = normal(1, rows, width)
        self.teacher_head = normal(vocabulary, width, spread=3 / width**0.5)
        self.labels = torch.randint(vocabulary, (1, rows), generator=made, device=device)
        self.labels[0, torch.randperm(rows, generator=made, device=device)[: rows // 2]] = -100
        self.mask = self.labels != -100
        self._kept: Any = None

    def stored(self) -> Any:
        """Top k and rest of the teacher at the positions that count; made once, outside of any step."""
        import torch

        from distill_dagster.training.losses.targets import Live, TopK

        if self._kept is None:
            live = Live(self.teacher_hidden[self.mask], self.teacher_head, self.vocabulary, k=K)
            tiles = [live.tile(start, start + 64) for start in range(0, int(self.mask.sum()), 64)]
            ids, values, rests = (torch.cat([tile[part] for tile in tiles]).cpu() for part in range(3))
            self._kept = TopK(ids, values, rests)  # on the CPU, where a store is read
        return self._kept


def ours(inputs: Inputs, way: str, tile: int | None = None) -> Any:
    """Our loss."""
    import torch

    from distill_dagster.training.losses.divergences import Divergence
    from distill_dagster.training.losses.sparse import Mix, Rows, sparse_loss
    from distill_dagster.training.losses.targets import Live

    hidden = inputs.hidden[inputs.mask]
    weights = torch.ones(len(hidden), device=hidden.device)
    rows = Rows(inputs.labels[inputs.mask], weights, weights.sum())
    if way == "stored":
        targets = inputs.stored()
    else:
        k = K if way == "live top 16" else 0
        targets = Live(inputs.teacher_hidden[inputs.mask], inputs.teacher_head, inputs.vocabulary, k=k)
    mix = Mix(Divergence("jsd", BETA))
    return sparse_loss(hidden, inputs.head, rows, targets, mix, tile_bytes=tile)[0]


def products(inputs: Inputs) -> Any:
    """Three matrix products, for the time that no loss can be faster than."""
    hidden = inputs.hidden[inputs.mask]
    logits = hidden @ inputs.head.t()
    logits.backward(logits.detach())
    return logits[0, 0]


def gkd(inputs: Inputs) -> Any:
    """TRL's GKD loss, as its trainer calls it."""
    import torch
    from trl.experimental.gkd import GKDTrainer

    student = inputs.hidden @ inputs.head.t()
    with torch.no_grad():
        teacher = inputs.teacher_hidden @ inputs.teacher_head.t()
    return GKDTrainer.generalized_jsd_loss(student, teacher, labels=inputs.labels, beta=BETA)


def distillation(inputs: Inputs) -> Any:
    """The loss of TRL's stable DistillationTrainer."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    heads = inputs.head, inputs.teacher_head
    return _chunked_divergence_loss(inputs.hidden, inputs.teacher_hidden, *heads, inputs.mask.long(), BETA)[0]


def liger(inputs: Inputs, compiled: bool = False) -> Any:
    """liger-kernel's fused linear JSD; `compiled` is its default, which TRL turns off."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=BETA, compiled=compiled)
    rows = (inputs.hidden[0], inputs.head, inputs.teacher_hidden[0], inputs.teacher_head)
    return loss(*rows, inputs.labels[0])


#: Peers by name, with the package each is from.
PEERS: dict[str, tuple[str, Any]] = {
    "gkd": ("trl", gkd),
    "distillation": ("trl", distillation),
    "liger": ("liger-kernel", liger),
    "liger compiled": ("liger-kernel", lambda inputs: liger(inputs, True)),
}


#: What each imports.
IMPORTS = {
    "gkd": "trl.experimental.gkd",
    "distillation": "trl.trainer.distillation_trainer",
    "liger": "liger_kernel.chunked_loss",
}


def run(inputs: Inputs, way: str, tile: int | None) -> Any:
    """Value of a step whose gradients lie in `hidden.grad` and `head.grad` afterwards."""
    if way == FLOOR:
        return products(inputs)
    loss = PEERS[way][1](inputs) if way in PEERS else ours(inputs, way, tile)
    loss.backward()
    return loss


def resident(field: str) -> int:
    """A line of /proc/self/status in bytes: VmRSS now, VmHWM the highest since it was reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def clean(inputs: Inputs, way: str) -> None:
    """Nothing of an earlier step is left."""
    inputs.hidden.grad = inputs.head.grad = None
    if way == "stored":
        inputs.stored()
    gc.collect()


def on_cpu(inputs: Inputs, way: str, tile: int | None) -> dict[str, float]:
    """One step: seconds on the wall and of this process, bytes that it added to this process at most, its loss."""
    clean(inputs, way)
    # Memory that earlier steps freed goes back, or a step would find room that it does not show.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, wall, own = resident("VmRSS"), time.perf_counter(), time.process_time()
    loss = run(inputs, way, tile)
    seconds, cpu = time.perf_counter() - wall, time.process_time() - own
    return {"wall": seconds, "cpu": cpu, "peak": resident("VmHWM") - before, "loss": loss.item()}


def on_gpu(inputs: Inputs, way: str, tile: int | None, steps: int) -> dict[str, Any]:
    """Several steps: seconds of each between two events on the GPU, most bytes that one allocated, the last one's loss.

    Raises:
        RuntimeError: Whatever the side raises, out of memory among it.
    """
    import torch

    seconds, peak, loss = [], 0, float("nan")
    for _ in range(steps):
        clean(inputs, way)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        said = run(inputs, way, tile)
        ended.record()
        torch.cuda.synchronize()
        seconds.append(began.elapsed_time(ended) / 1000)
        peak, loss = max(peak, torch.cuda.max_memory_allocated() - before), said.item()
        del said
    return {"wall": seconds, "peak": peak, "loss": loss}


def main() -> None:
    """Answer one question a line until standard input closes; what fails is said and nothing ends."""
    import torch

    torch.set_num_threads(1)
    # At once, while another worker measures. What cannot be imported says so when it is asked.
    for way in sys.argv[1:]:
        with contextlib.suppress(Exception):
            importlib.import_module(IMPORTS.get(way, IMPORTS["liger"]))
    gc.freeze()  # `clean` need not look through all that was imported, at each step
    known: dict[tuple[Any, ...], Inputs] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        shape = tuple(asked["shape"])
        if shape not in known:
            known.clear()
            gc.collect()
            known[shape] = Inputs(*shape)
        way, tile, inputs = asked["way"], asked.get("tile"), known[shape]
        try:
            if inputs.device == "cpu":
                found: dict[str, Any] = on_cpu(inputs, way, tile)
            else:
                found = on_gpu(inputs, way, tile, asked["steps"])
            if way in PEERS:
                from importlib.metadata import version

                found["version"] = version(PEERS[way][0])
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
            clean(inputs, way)
            if inputs.device != "cpu":
                torch.cuda.empty_cache()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
