"""One loss step (value and gradients of hidden states and output layer) beside its peers'.

    make bench-loss                                   on a CPU with one thread
    python benchmarks/loss.py --device cuda           on a GPU; --tiles adds our time by size of a tile

One worker process a side, the same random inputs, steps in turn, half of the positions masked. On a CPU ours runs in
`.venv` and the peers in `benchmarks/.venv-trl`, and peak memory is what the step adds to its process. On a GPU all run
by this Python unless `--peer-python` names another, times are between two events on the GPU, and peak memory is what
the step allocated there. The peers are

    gkd             `trl.experimental.gkd`: whole logits of both models, then `generalized_jsd_loss`
    distillation    the loss of TRL's stable `DistillationTrainer`, `_chunked_divergence_loss`
    liger           `LigerFusedLinearJSDLoss` of liger-kernel, as TRL calls it. The package requires Triton, which has
                    no CPU, but without torch.compile this loss is plain torch: on a CPU it is installed without that
    liger compiled  the same by torch.compile, which is its default; only by `--compiled`, on a GPU

All run the teacher's output layer in the step. Ours is measured three ways: from stored signals (top 16 and a rest, no
teacher), with the teacher's output layer in the step and top 16, and with it and the whole vocabulary. The last is the
peers' own number, and the difference from the first is the share that comes from not running the teacher.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import loss_sides as sides

HERE = Path(__file__).resolve().parent
#: Rows, vocabulary, width, device and precision.
Shape = tuple[int, int, int, str, str]
CPU: dict[str, Shape] = {
    "32k": (2048, 32_000, 256, "cpu", "float32"),
    "152k": (512, 151_936, 256, "cpu", "float32"),
}
GPU: dict[str, Shape] = {
    "32k bf16": (8192, 32_000, 2048, "cuda", "bfloat16"),
    "152k bf16": (8192, 151_936, 1024, "cuda", "bfloat16"),
    "152k wide bf16": (8192, 151_936, 4096, "cuda", "bfloat16"),
    "32k fp32": (8192, 32_000, 2048, "cuda", "float32"),
    "152k fp32": (8192, 151_936, 1024, "cuda", "float32"),
}
#: What a GPU measures by default.
FIRST = ("32k bf16", "152k bf16")
#: Steps of a side before the other's turn; on a CPU one lasts long enough.
STEPS = 5
TILES = tuple(1 << power for power in range(26, 33))


class Side:
    """A worker process, which imports the packages of `ways` at once."""

    def __init__(self, python: str, ways: Sequence[str] = ()) -> None:
        own = python == sys.executable
        inherited = os.environ.get("PYTHONPATH")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TRL_EXPERIMENTAL_SILENCE": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), *([inherited] if inherited else [])]) if own else "",
        }
        self.process = subprocess.Popen(
            [python, str(HERE / "loss_sides.py"), *ways],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, way: str, shape: Shape, tile: int | None = None) -> dict[str, Any]:
        """One step on a CPU, `STEPS` on a GPU."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"way": way, "shape": shape, "tile": tile, "steps": STEPS}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker for {way!r} ended with {self.process.wait()}")
        return json.loads(line)


def middle(runs: list[dict[str, Any]], clock: str) -> dict[str, float]:
    """Medians of a side's runs; with `error` where one failed."""
    failed = [run["error"] for run in runs if "error" in run]
    if failed:
        return {"error": failed[0]}  # pyright: ignore[reportReturnType]
    times = [value for run in runs for value in (run[clock] if isinstance(run[clock], list) else [run[clock]])]
    found = {key: statistics.median(run[key] for run in runs) for key in ("peak", "loss")}
    return {"seconds": statistics.median(times), **found}


def told(way: str) -> str:
    """A side as the table names it."""
    if way not in sides.PEERS:
        return way if way == sides.FLOOR else f"ours, {way}"
    return f"{sides.PEERS[way][0]} {way.removeprefix('liger').strip()}".strip()


def row(name: str, label: str, one: dict[str, Any], digits: int) -> None:
    """A line of the table."""
    if "error" in one:
        print(f"{name:<16}{label:<28}{one['error'][:90]}", flush=True)
        return
    numbers = f"{one['seconds']:>9.{digits}f}{one['peak'] / 2**20:>9.0f}{one['loss']:>10.5f}"
    print(f"{name:<16}{label:<28}{numbers}", flush=True)


def measured(name: str, shape: Shape, options: Any, mine: Side, theirs: Side) -> list[dict[str, Any]]:
    """One shape's table, printed; its lines of JSON."""
    clock = "cpu" if options.busy else "wall"
    on_gpu = shape[3] != "cpu"
    ways = [*sides.OURS, *([sides.FLOOR] if on_gpu else ()), *options.peers]
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    versions: dict[str, str] = {}
    for turn in range(options.pairs + 1):  # the first of each is a warm-up
        for way in found:
            if turn and found[way] and "error" in found[way][-1]:
                continue
            result = (theirs if way in sides.PEERS else mine).ask(way, shape)
            versions[way] = result.pop("version", "")
            if turn or "error" in result:
                found[way].append(result)
            if turn == options.pairs or "error" in result:  # as soon as it is known: a run that is cut short tells, too
                row(name, told(way), middle(found[way], clock), 5 if on_gpu else 3)
    middles = {way: middle(runs, clock) for way, runs in found.items()}
    lines = []
    peers = [way for way in options.peers if "error" not in middles[way]]
    # In bf16 the peers' own logarithms are rounded to it.
    allowed = 5e-2 if shape[4] == "bfloat16" else 1e-4
    for way in peers:
        if abs(middles[way]["loss"] / middles["live"]["loss"] - 1) > allowed:
            said = f"{way} and ours do not compute the same: {middles[way]['loss']}, {middles['live']['loss']}"
            if not on_gpu:
                raise SystemExit(said)
            print(said)
    for mode in ("stored", "live"):
        for way in peers:
            timed = "s on the GPU" if on_gpu else f"{clock} s"
            for measure, key, unit, scale in (("time", "seconds", timed, 1), ("memory", "peak", "MiB", 2**20)):
                one, other = middles[mode][key] / scale, middles[way][key] / scale
                lines.append(
                    {
                        "name": f"loss {name} {mode} {measure}",
                        "ours": round(one, 6 if on_gpu else 4),
                        "peer": round(other, 6 if on_gpu else 4),
                        "peer_name": told(way),
                        "peer_version": versions[way],
                        "ratio": round(other / one, 2),
                        "unit": unit,
                    }
                )
    return lines


def tiles(name: str, shape: Shape, mine: Side) -> None:
    """Our time and memory by size of a tile."""
    for way in ("stored", "live"):
        for size in TILES:
            runs = [mine.ask(way, shape, size) for _ in range(2)]
            row(name, f"ours, {way}, {size >> 20} MiB", middle(runs[1:], "wall"), 5)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pairs", type=int, help=f"turns of each side: 5 of a step; on a GPU 2 of {STEPS} steps")
    parser.add_argument("--busy", action="store_true", help="run on a loaded machine, and compare processor time")
    parser.add_argument("--shapes", nargs="+", help=f"of {', '.join(CPU)}; on a GPU {', '.join(GPU)}, by default two")
    parser.add_argument("--peers", nargs="*", choices=list(sides.PEERS), help="by default all that run there")
    parser.add_argument("--compiled", action="store_true", help="GPU: liger by torch.compile, too")
    parser.add_argument("--peer-python", type=Path, help="a Python that has the peers")
    parser.add_argument("--tiles", action="store_true", help="GPU: ours by size of a tile, too")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    shapes = GPU if on_gpu else CPU
    wanted = options.shapes or list(FIRST if on_gpu else CPU)
    options.pairs = options.pairs or (2 if on_gpu else 5)
    if unknown := [name for name in wanted if name not in shapes]:
        parser.error(f"no such shape: {', '.join(unknown)}; there are {', '.join(shapes)}")
    if options.peers is None:
        options.peers = ["gkd", "distillation", "liger", *(["liger compiled"] if options.compiled else [])]
    peer = options.peer_python or (Path(sys.executable) if on_gpu else HERE / ".venv-trl" / "bin" / "python")
    if not peer.exists():
        raise SystemExit("the peer is not installed: `make bench-loss` makes its environment")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 0.5 * cores and not options.busy:
        raise SystemExit(f"the load is {load:.1f} on {cores} cores: times would say nothing. Wait, or give --busy")
    mine, theirs = Side(sys.executable), Side(str(peer), options.peers)
    if on_gpu:
        import torch

        options.busy = False
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; ", end="")
        print(f"seconds between events on the GPU, medians of {options.pairs * STEPS}; MiB is the peak\n")
    else:
        clock = "cpu" if options.busy else "wall"
        print(f"load {load:.1f} on {cores} cores; times are {clock} seconds, medians of {options.pairs}; ", end="")
        print("MiB is the peak\n")
    print(f"{'shape':<16}{'loss':<28}{'seconds':>9}{'MiB':>9}{'value':>10}", flush=True)
    lines = [line for name in wanted for line in measured(name, shapes[name], options, mine, theirs)]
    if on_gpu and options.tiles:
        print()
        for name in wanted:
            tiles(name, shapes[name], mine)
    print()
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
