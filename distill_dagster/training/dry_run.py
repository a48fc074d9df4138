"""A dry run: a model of some architecture with random weights takes two optimizer steps, and that is measured.

`python -m distill_dagster.training.dry_run TASK.json` reads `{architecture, layers, recipe, labels}` and prints one
line of JSON. A process of its own, so that its peak of memory is that of the training alone.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def run(architecture: dict[str, Any], layers: int | None, recipe: dict[str, Any], labels: int = 0) -> dict[str, Any]:
    """Train two steps on random tokens, every one of which carries a loss; or on random labels, where there are some.

    Returns:
        `seconds` of the second step (the first also chooses how to compute the model), `peak_bytes` and
        `runtime_bytes` of this process, `layers`, `parameters` trained, `forward` and the two losses.
    """
    import torch

    from distill_dagster.config.models import Recipe
    from distill_dagster.training import adapters, sizing, trainer
    from distill_dagster.training.data import Example

    said = Recipe(
        **{
            **recipe,
            "steps": 2,
            "log_every": 1,
            "checkpoint_every": 1000,
            "warmup_steps": 0,
            "early_stop": None,
            "device": "cpu",
        }
    )
    if any(name != "sft" for name in said.terms):
        said = said.model_copy(update={"objective": {"sft": 1.0}})
    adapters.require(said, "dry run")
    runtime = _memory("VmRSS")
    config = sizing.config_of(architecture, "dry run", layers, labels)
    torch.manual_seed(said.seed)
    model = sizing.build(config, "cpu")
    adapters.attach(model, said, "dry run")
    length = min(said.max_length, said.batch_tokens)
    rng = random.Random(said.seed)
    weights = [0.0] * (length - 1) + [1.0] if labels else [1.0] * length
    examples = [
        Example(
            f"random {number}",
            [rng.randrange(config.vocab_size) for _ in range(length)],
            weights,
            label=rng.randrange(labels) if labels else None,
        )
        for number in range(said.batch_tokens // length)
    ]
    words: Any = SimpleNamespace(pad_token_id=0, eos_token_id=0)
    with tempfile.TemporaryDirectory() as folder:
        summary = trainer.train(model, words, examples, said, folder)
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {
        "seconds": rows[1]["elapsed"] - rows[0]["elapsed"],
        "peak_bytes": _memory("VmHWM"),
        "runtime_bytes": runtime,
        "layers": config.num_hidden_layers,
        "parameters": summary["parameters"],
        "forward": summary["forward"],
        "losses": [row["loss"] for row in rows],
    }


def _memory(field: str) -> int:
    """A figure of /proc/self/status (bytes), or the peak that any Unix knows."""
    try:
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    task = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    print(json.dumps(run(task["architecture"], task.get("layers"), task["recipe"], task.get("labels") or 0)))
