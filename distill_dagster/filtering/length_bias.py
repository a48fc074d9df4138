"""Length bias: answers much longer or shorter than people's answers to the same task.

The modified z-score (Iglewicz and Hoaglin 1993) of the answer's length, in log words, against gold answers of the task:
0.6745 · (x − median) / MAD, or (x − median) / (1.2533 · mean absolute deviation) where most gold answers are equally
long.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.filtering._text import words
from distill_dagster.filtering.base import Batch, Context, Look, RuleBase


class Rule(RuleBase):
    """Drops or flags answers whose length departs from gold's. Tasks with labels have no length to judge."""

    version = "1"

    class Params(Strict):
        z: float = Field(3.5, gt=0, description="Largest modified z-score")
        least: int = Field(20, ge=3, description="A task with fewer gold answers is not judged")
        action: Literal["drop", "flag"] = Field("drop", description="flag: kept, with the reason in its look")

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: too_short, too_long; kept ones say label, few_gold or no_spread where nothing could be judged."""
        gold: dict[str, list[float]] = {}
        for seed in context.seeds.values():
            if seed.get("answer") is not None and seed.get("part") != "unlabeled":
                gold.setdefault(seed["task"], []).append(_size(seed["answer"]))
        scales = {task: _scale(np.array(sizes)) for task, sizes in gold.items() if len(sizes) >= self.params.least}
        looks = []
        columns = (candidates.column(name) for name in ("task", "answer"))
        for task, answer in zip(*columns, strict=True):
            known = context.tasks.get(task)
            if known is not None and known.kind == "label":
                looks.append(Look(reason="label"))
            elif task not in scales:
                looks.append(Look(reason="few_gold"))
            elif scales[task][1] == 0:
                looks.append(Look(reason="no_spread"))
            else:
                middle, spread = scales[task]
                looks.append(self._judge((_size(answer or "") - middle) / spread))
        return looks

    def _judge(self, score: float) -> Look:
        verdict = "keep" if abs(score) <= self.params.z or self.params.action == "flag" else "drop"
        reason = "" if abs(score) <= self.params.z else "too_long" if score > 0 else "too_short"
        return Look(verdict, reason, score, self.params.z)


def _size(text: str) -> float:
    return float(np.log1p(len(words(text))))


def _scale(sizes: np.ndarray) -> tuple[float, float]:
    """Median, and a spread that estimates the standard deviation; 0 where all are equal."""
    middle = float(np.median(sizes))
    off = np.abs(sizes - middle)
    return middle, float(np.median(off)) / 0.6745 or 1.2533 * float(off.mean())
