"""`metrics.jsonl`: one JSON object a logged step, appended as the run goes, without gaps or repeats after a crash."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_dagster.storage.atomic import write_bytes

if TYPE_CHECKING:
    import torch

FILE = "metrics.jsonl"
#: Numbers by name, some of them still on the device that computed them.
Values = dict[str, "float | torch.Tensor"]


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file; a torn last line is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def rewind(path: Path, step: int) -> None:
    """Keep the lines up to `step`: what came after the checkpoint will be logged again."""
    kept = [json.dumps(row) + "\n" for row in read(path) if row["step"] <= step]
    write_bytes(path, "".join(kept).encode())


class Means:
    """Means of what happened since the last logged line; survives in a checkpoint as JSON."""

    def __init__(self, values: dict[str, float] | None = None) -> None:
        self.sums: dict[str, float] = dict(values or {})

    def add(self, values: dict[str, float]) -> None:
        """Add one step's values."""
        for name, value in {**values, "steps": 1.0}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """The means, and start anew."""
        steps = self.sums.pop("steps", 1.0)
        means = {name: value / steps for name, value in self.sums.items()}
        self.sums = {}
        return means


def numbers(given: Sequence[Values]) -> list[dict[str, float]]:
    """The values of each as numbers; tensors (scalars of one device) are read together, so a GPU is waited for once."""
    import torch

    tensors = [value for values in given for value in values.values() if isinstance(value, torch.Tensor)]
    read = iter(torch.stack([value.detach().double() for value in tensors]).tolist() if tensors else ())
    return [
        {name: next(read) if isinstance(value, torch.Tensor) else value for name, value in values.items()}
        for values in given
    ]


def finite(values: dict[str, float]) -> bool:
    """Whether all of them are finite."""
    return all(math.isfinite(value) for value in values.values())
