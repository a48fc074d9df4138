"""An epoch of a student from stored signals, beside the same epoch with the teacher in memory.

    make bench-signal                               on a CPU with one thread, in fp32
    python benchmarks/signals.py --device cuda      on a GPU, larger models in bf16

The teacher has at least 4 times the student's parameters; both are random Llamas, the data random tokens of which half
are an answer. Ours and the peer are the same trainer on the same records and differ in `signals: stored` and
`signals: live` (the whole vocabulary), so the ratio is what the store saves. Capture time and size stand beside it.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

K = 16


@dataclass(frozen=True)
class Scale:
    """Records and tokens of each, tokens of a batch, precision; width, feed-forward width, layers and heads."""

    records: int
    length: int
    batch: int
    precision: str
    student: tuple[int, int, int, int]
    teacher: tuple[int, int, int, int]


SCALES = {
    "cpu": Scale(160, 96, 2048, "fp32", (128, 352, 4, 4), (320, 864, 4, 4)),
    "cuda": Scale(128, 256, 8192, "bf16", (768, 2048, 12, 12), (1536, 4096, 13, 12)),
}


def model(sizes: tuple[int, int, int, int], vocabulary: int, device: str) -> Any:
    """A random Llama, drawn on a device: there are 400 million numbers in the largest."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(sizes[0])
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    said: Any = {**dict(zip(names, sizes, strict=True)), "vocab_size": vocabulary}
    with torch.device(device):
        made = LlamaForCausalLM(LlamaConfig(**said, pad_token_id=0, eos_token_id=1, max_position_embeddings=256))
    return made.cpu()


def done(what: str, began: float) -> None:
    """A line of progress, so that a run that is cut short tells how far it came."""
    print(f"{time.perf_counter() - began:6.1f} s: {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=SCALES, default="cpu")
    parser.add_argument("--pairs", type=int, help="epochs of each side, in turn: 5; on a GPU 2")
    parser.add_argument("--records", type=int, help="records of an epoch")
    parser.add_argument("--busy", action="store_true", help="run on a loaded machine, and compare processor time")
    options = parser.parse_args()
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 0.5 * cores and not options.busy and options.device == "cpu":
        raise SystemExit(f"the load is {load:.1f} on {cores} cores: times would say nothing. Wait, or give --busy")
    import torch

    from distill_dagster import __version__
    from distill_dagster.config.models import Recipe
    from distill_dagster.models import folder
    from distill_dagster.training import tokenizer as tokenizers
    from distill_dagster.training import trainer
    from distill_dagster.training.data import Example
    from distill_dagster.training.signals import capture, live, store

    began, on_gpu = time.perf_counter(), options.device == "cuda"
    scale, pairs = SCALES[options.device], options.pairs or (2 if on_gpu else 5)
    if options.records:
        scale = replace(scale, records=options.records)
    if not on_gpu:
        torch.set_num_threads(1)
    busy = options.busy and not on_gpu
    clock = time.process_time if busy else time.perf_counter
    unit = "cpu s" if busy else "wall s"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        rng = random.Random(1)
        words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(4000)]
        tokenizer = tokenizers.fit([" ".join(words)], 4096, place / "tokenizer")
        size = len(tokenizer)
        done("tokenizer", began)
        teacher, student = (model(sizes, size, options.device) for sizes in (scale.teacher, scale.student))
        large, small = (sum(part.numel() for part in one.parameters()) for one in (teacher, student))
        path = folder.save(teacher, tokenizer, place / "teacher")
        done("models", began)
        weights = [0.0] * (scale.length // 2) + [1.0] * (scale.length - scale.length // 2)
        examples = [
            Example(f"r{number}", [rng.randrange(5, size) for _ in range(scale.length)], weights)
            for number in range(scale.records)
        ]
        meta = store.Meta(
            "teacher", store.tokenizer_digest(tokenizer), store.template_digest(tokenizer, "chat"), size, K, (1.0,)
        )
        started = clock()
        captured = capture.capture(
            examples, meta, capture.Scorer(path, meta, scale.precision, options.device), place / "work"
        )
        paid = clock() - started
        done("capture", began)
        file = place / store.FILE
        store.write(file, captured.rows, meta)
        sources = {"stored": store.Stored(file, tokenizer), "live": live.LiveTeacher(path, tokenizer, scale.precision)}
        said: dict[str, Any] = {
            "steps": -(-scale.records * scale.length // scale.batch),
            "batch_tokens": scale.batch,
            "precision": scale.precision,
            "device": options.device,
        }
        times: dict[str, list[float]] = {way: [] for way in sources}
        for turn in range(pairs + 1):  # the first of each is a warm-up
            for way, source in sources.items():
                term: dict[str, Any] = {"kind": "forward", "signals": way, "k": K if way == "stored" else 0}
                recipe = Recipe(objective={"divergence": term}, **said)  # pyright: ignore
                fresh, started = copy.deepcopy(student), clock()
                summary = trainer.train(fresh, tokenizer, examples, recipe, place / f"{way}{turn}", signals=[source])
                spent = clock() - started
                done(f"epoch {turn}, {way}", began)
                if turn:
                    # Copies to a GPU and hashes of all weights come once a run, not once an epoch.
                    times[way].append(summary["seconds"] if on_gpu else spent)
    stored, asked = (statistics.median(times[way]) for way in ("stored", "live"))
    positions = sum(row.positions for row in captured.rows)
    width = sum(len(row.blob) for row in captured.rows) / positions
    where = torch.cuda.get_device_name() if on_gpu else f"load {load:.1f} on {cores} cores"
    print(f"{where}; {scale.precision}, {unit}, medians of {pairs}")
    print(f"parameters: student {small:,}, teacher {large:,} ({large / small:.2f} times)")
    print(f"epoch from the store {stored:.2f}, with the teacher in memory {asked:.2f}; captured once in {paid:.2f}")
    print(f"{positions} tokens, {width:.1f} bytes each before compression, {meta.layout.width} by the layout\n")
    peer = {"peer_name": "live teacher, same trainer", "peer_version": __version__}
    for name, own, other in (("signal epoch", stored, asked), ("signal capture", paid, asked - stored)):
        line = {"name": name, "ours": round(own, 3), "peer": round(other, 3), **peer, "ratio": round(other / own, 2)}
        print(json.dumps({**line, "unit": unit}))


if __name__ == "__main__":
    main()
