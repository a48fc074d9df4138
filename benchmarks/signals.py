"""An epoch of a student from stored signals, beside the same epoch with the teacher in memory.

    make bench-signal

The teacher has 2.9 times the student's parameters; both are random Llamas, the data random tokens of which half are an
answer. Ours and the peer are the same trainer on the same records and differ in `signals: stored` and `signals: live`
(the whole vocabulary), so the ratio is what the store saves. Capture time and size stand beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

RECORDS, LENGTH, K = 160, 96, 16
SIZES = {
    "student": {"hidden_size": 128, "intermediate_size": 352},
    "teacher": {"hidden_size": 256, "intermediate_size": 704},
}


def model(name: str, vocabulary: int) -> Any:
    """A random Llama of four layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(len(name))
    sizes: Any = {**SIZES[name], "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": vocabulary}
    return LlamaForCausalLM(LlamaConfig(**sizes, pad_token_id=0, eos_token_id=1, max_position_embeddings=256))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="epochs of each side, in turn")
    parser.add_argument("--busy", action="store_true", help="run on a loaded machine, and compare processor time")
    options = parser.parse_args()
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 0.5 * cores and not options.busy:
        raise SystemExit(f"the load is {load:.1f} on {cores} cores: times would say nothing. Wait, or give --busy")
    import torch

    from distill_dagster import __version__
    from distill_dagster.config.models import Recipe
    from distill_dagster.models import folder
    from distill_dagster.training import tokenizer as tokenizers
    from distill_dagster.training import trainer
    from distill_dagster.training.data import Example
    from distill_dagster.training.signals import capture, live, store

    torch.set_num_threads(1)
    clock = time.process_time if options.busy else time.perf_counter
    unit = "cpu s" if options.busy else "wall s"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        rng = random.Random(1)
        words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(4000)]
        tokenizer = tokenizers.fit([" ".join(words)], 4096, place / "tokenizer")
        size = len(tokenizer)
        teacher, student = model("teacher", size), model("student", size)
        counts = {one: sum(p.numel() for p in each.parameters()) for one, each in (("t", teacher), ("s", student))}
        path = folder.save(teacher, tokenizer, place / "teacher")
        weights = [0.0] * (LENGTH // 2) + [1.0] * (LENGTH - LENGTH // 2)
        examples = [Example(f"r{n}", [rng.randrange(5, size) for _ in range(LENGTH)], weights) for n in range(RECORDS)]
        meta = store.Meta(
            "teacher", store.tokenizer_digest(tokenizer), store.template_digest(tokenizer, "chat"), size, K, (1.0,)
        )
        started = clock()
        captured = capture.capture(examples, meta, capture.Scorer(path, meta), place / "work")
        paid = clock() - started
        file = place / store.FILE
        store.write(file, captured.rows, meta)
        sources = {"stored": store.Stored(file, tokenizer), "live": live.LiveTeacher(path, tokenizer)}
        batch = 2048
        steps = -(-RECORDS * LENGTH // batch)
        times: dict[str, list[float]] = {way: [] for way in sources}
        for turn in range(options.pairs + 1):  # the first of each is a warm-up
            for way, source in sources.items():
                term: dict[str, Any] = {"kind": "forward", "signals": way, "k": K if way == "stored" else 0}
                recipe = Recipe(objective={"divergence": term}, steps=steps, batch_tokens=batch)  # pyright: ignore
                started = clock()
                trainer.train(
                    model("student", size), tokenizer, examples, recipe, place / f"{way}{turn}", signals=[source]
                )
                if turn:
                    times[way].append(clock() - started)
    stored, asked = (statistics.median(times[way]) for way in ("stored", "live"))
    positions = sum(row.positions for row in captured.rows)
    width = sum(len(row.blob) for row in captured.rows) / positions
    print(f"load {load:.1f} on {cores} cores; {unit}, medians of {options.pairs}")
    print(f"parameters: student {counts['s']:,}, teacher {counts['t']:,} ({counts['t'] / counts['s']:.1f} times)")
    print(f"epoch from the store {stored:.2f}, with the teacher in memory {asked:.2f}; captured once in {paid:.2f}")
    print(f"{positions} tokens, {width:.1f} bytes each before compression, {meta.layout.width} by the layout\n")
    peer = {"peer_name": "live teacher, same trainer", "peer_version": __version__}
    for name, own, other in (("signal epoch", stored, asked), ("signal capture", paid, asked - stored)):
        line = {"name": name, "ours": round(own, 3), "peer": round(other, 3), **peer, "ratio": round(other / own, 2)}
        print(json.dumps({**line, "unit": unit}))


if __name__ == "__main__":
    main()
