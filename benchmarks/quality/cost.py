"""What teacher and students take to serve: parameters, bytes, milliseconds a question on one CPU thread.

Weights do not change the time, so the models are measured as they start. Measure on an idle machine.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from banking import LAYERS, start
from questions import MAX_LENGTH, Questions, chats
from study import Cell, Study

PART = "cost"
#: Layers of each model that is measured; None: all.
MODELS: dict[str, list[int] | None] = {"teacher": None, "student": LAYERS[""], "student_2layers": LAYERS["_2layers"]}


def cells(options: dict[str, Any]) -> list[Cell]:
    """One cell a model."""
    return [Cell(PART, arm) for arm in MODELS]


def run(study: Study, cell: Cell) -> dict[str, Any]:
    """Median milliseconds a question, one at a time and 64 at a time, fp32."""
    import torch

    from distill_dagster.training.classify import encode
    from distill_dagster.training.forward import Forward

    torch.set_num_threads(1)
    questions = Questions(study)
    model, tokenizer = start(MODELS[cell.arm], questions.labels, 0)
    examples = encode(tokenizer, chats(questions.test[:256]), None, MAX_LENGTH).examples
    forward, padding = Forward(model), int(tokenizer.pad_token_id or 0)
    found: dict[str, Any] = {"parameters": sum(value.numel() for value in model.parameters())}
    found["bytes"] = 4 * found["parameters"]
    with torch.inference_mode():
        for size in (1, 64):
            spent = []
            for first in range(0, len(examples), size):
                began = time.perf_counter()
                forward(examples[first : first + size], padding)
                spent.append((time.perf_counter() - began) / len(examples[first : first + size]))
            found[f"ms_{size}"] = 1000 * statistics.median(spent)
    return found
