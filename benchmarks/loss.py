"""One loss step (value and gradients of hidden states and output layer) beside TRL's, on a CPU with one thread.

    make bench-loss

Ours runs in `.venv`, the peers in `benchmarks/.venv-trl`: one worker process a side, the same random inputs, steps in
turn. Peak memory is what the step adds to its process. Half of the positions are masked. The peers are

    gkd           `trl.experimental.gkd`: whole logits of both models, then `generalized_jsd_loss`
    distillation  the loss of the stable `DistillationTrainer`, `_chunked_divergence_loss`

Both run the teacher's output layer in the step. Ours is measured three ways: from stored signals (top 16 and a rest, no
teacher), with the teacher's output layer in the step and top 16, and with it and the whole vocabulary. The last is the
peers' own number, and the difference from the first is the share that comes from not running the teacher.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHAPES = {"32k": (2048, 32_000), "152k": (512, 151_936)}
WIDTH, K, BETA = 256, 16, 0.5
OURS, PEERS = ("stored", "live top 16", "live"), ("gkd", "distillation")


# --- workers --------------------------------------------------------------------------------------------------------


class Inputs:
    """The same numbers in every worker."""

    def __init__(self, rows: int, vocabulary: int) -> None:
        import torch

        made = torch.Generator().manual_seed(vocabulary)

        def normal(*shape: int) -> Any:
            return torch.randn(*shape, generator=made)

        self.rows, self.vocabulary = rows, vocabulary
        self.hidden = normal(1, rows, WIDTH).requires_grad_()
        self.head = (normal(vocabulary, WIDTH) * (2 / WIDTH**0.5)).requires_grad_()
        self.teacher_hidden = normal(1, rows, WIDTH)
        self.teacher_head = normal(vocabulary, WIDTH) * (3 / WIDTH**0.5)
        self.labels = torch.randint(vocabulary, (1, rows), generator=made)
        self.labels[0, torch.randperm(rows, generator=made)[: rows // 2]] = -100
        self.mask = self.labels != -100
        self._kept: Any = None

    def stored(self) -> Any:
        """Top k and rest of the teacher at the positions that count; made once, outside of any step."""
        from distill_dagster.training.losses.targets import Live, TopK

        if self._kept is None:
            live = Live(self.teacher_hidden[self.mask], self.teacher_head, self.vocabulary, k=K)
            tiles = [live.tile(start, start + 64) for start in range(0, int(self.mask.sum()), 64)]
            import torch

            ids, values, rests = (torch.cat([tile[part] for tile in tiles]) for part in range(3))
            self._kept = TopK(ids, values, rests)
        return self._kept


def ours(inputs: Inputs, way: str) -> Any:
    """Our loss."""
    import torch

    from distill_dagster.training.losses.divergences import Divergence
    from distill_dagster.training.losses.sparse import Mix, Rows, sparse_loss
    from distill_dagster.training.losses.targets import Live

    weights = torch.ones(int(inputs.mask.sum()))
    rows = Rows(inputs.labels[inputs.mask], weights, weights.sum())
    if way == "stored":
        targets = inputs.stored()
    else:
        k = K if way == "live top 16" else 0
        targets = Live(inputs.teacher_hidden[inputs.mask], inputs.teacher_head, inputs.vocabulary, k=k)
    return sparse_loss(inputs.hidden[inputs.mask], inputs.head, rows, targets, Mix(Divergence("jsd", BETA)))[0]


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


def resident(field: str) -> int:
    """A line of /proc/self/status in bytes: VmRSS now, VmHWM the highest since it was reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def step(inputs: Inputs, way: str) -> dict[str, float]:
    """One step, measured."""
    inputs.hidden.grad = inputs.head.grad = None
    if way == "stored":
        inputs.stored()
    gc.collect()
    # Memory that earlier steps freed goes back, or a step would find room that it does not show.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, wall, own = resident("VmRSS"), time.perf_counter(), time.process_time()
    loss = {"gkd": gkd, "distillation": distillation}.get(way, lambda given: ours(given, way))(inputs)
    loss.backward()
    seconds, cpu = time.perf_counter() - wall, time.process_time() - own
    return {"wall": seconds, "cpu": cpu, "peak": resident("VmHWM") - before, "loss": loss.item()}


def worker() -> None:
    """Answer one step a line until standard input closes."""
    import torch

    torch.set_num_threads(1)
    known: dict[tuple[int, int], Inputs] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        shape = (asked["rows"], asked["vocabulary"])
        if shape not in known:
            known.clear()
            known[shape] = Inputs(*shape)
        found = step(known[shape], asked["way"])
        if asked["way"] in PEERS:
            import trl

            found["version"] = trl.__version__
        print(json.dumps(found), flush=True)


# --- the table ------------------------------------------------------------------------------------------------------


class Side:
    """A worker process."""

    def __init__(self, python: str) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(HERE.parent) if python == sys.executable else "",
        }
        self.process = subprocess.Popen(
            [python, str(HERE / "loss.py"), "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, way: str, rows: int, vocabulary: int) -> dict[str, Any]:
        """One step."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"way": way, "rows": rows, "vocabulary": vocabulary}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker for {way!r} ended with {self.process.wait()}")
        return json.loads(line)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, default=5, help="steps of each side, in turn")
    parser.add_argument("--busy", action="store_true", help="run on a loaded machine, and compare processor time")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    options = parser.parse_args()
    if options.worker:
        return worker()
    peer = HERE / ".venv-trl" / "bin" / "python"
    if not peer.exists():
        raise SystemExit("the peer is not installed: `make bench-loss` makes its environment")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 0.5 * cores and not options.busy:
        raise SystemExit(f"the load is {load:.1f} on {cores} cores: times would say nothing. Wait, or give --busy")
    clock = "cpu" if options.busy else "wall"
    mine, theirs = Side(sys.executable), Side(str(peer))
    lines, version = [], ""
    print(f"load {load:.1f} on {cores} cores; times are {clock} seconds, medians of {options.pairs}; MiB is the peak\n")
    print(f"{'shape':<7}{'loss':<22}{'seconds':>9}{'MiB':>9}{'value':>10}")
    for name in options.shapes:
        rows, vocabulary = SHAPES[name]
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in (*OURS, *PEERS)}
        for turn in range(options.pairs + 1):  # the first of each is a warm-up
            for way in found:
                result = (theirs if way in PEERS else mine).ask(way, rows, vocabulary)
                version = result.pop("version", version)
                if turn:
                    found[way].append(result)
        middle = {way: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for way, runs in found.items()}
        for way, one in middle.items():
            told = f"trl {way}" if way in PEERS else f"ours, {way}"
            print(f"{name:<7}{told:<22}{one[clock]:>9.3f}{one['peak'] / 2**20:>9.0f}{one['loss']:>10.5f}")
        for way in PEERS:
            if abs(middle[way]["loss"] / middle["live"]["loss"] - 1) > 1e-4:
                raise SystemExit(
                    f"{way} and ours do not compute the same: {middle[way]['loss']}, {middle['live']['loss']}"
                )
        for mode in ("stored", "live"):
            for way in PEERS:
                for measure, key, unit, scale in (("time", clock, f"{clock} s", 1), ("memory", "peak", "MiB", 2**20)):
                    one, other = middle[mode][key] / scale, middle[way][key] / scale
                    lines.append(
                        {
                            "name": f"loss {name} {mode} {measure}",
                            "ours": round(one, 4),
                            "peer": round(other, 4),
                            "peer_name": f"trl {way}",
                            "peer_version": version,
                            "ratio": round(other / one, 2),
                            "unit": unit,
                        }
                    )
    print()
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
