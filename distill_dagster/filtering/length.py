"""Length: answers (or inputs) that are too short or too long, in characters and words."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distill_dagster.config.models import Strict
from distill_dagster.filtering._text import words
from distill_dagster.filtering.base import Batch, Context, Look, RuleBase

#: Size, lower and upper bound, unit.
Bound = tuple[int, int, int | None, str]


class Rule(RuleBase):
    """Drops texts outside the bounds. The score is the length, in the unit of the bound that was held or broken."""

    version = "1"

    class Params(Strict):
        of: Literal["answer", "input", "rationale"] = "answer"
        min_chars: int = Field(1, ge=0)
        max_chars: int = Field(8000, ge=1)
        min_words: int = Field(0, ge=0, description="A Chinese or Japanese character counts as a word")
        max_words: int | None = Field(None, ge=1)

        @model_validator(mode="after")
        def _ordered(self):
            if self.min_chars > self.max_chars or (self.max_words is not None and self.min_words > self.max_words):
                raise ValueError("the lower bound lies above the upper one")
            return self

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: too_short, too_long. A missing rationale is no fault of its length."""
        bounds = self.params
        texts = candidates.inputs if bounds.of == "input" else candidates.column(bounds.of)
        looks = []
        for text in texts:
            if text is None and bounds.of == "rationale":
                looks.append(Look(detail="no rationale"))
                continue
            text = (text or "").strip()
            measured: list[Bound] = [(len(text), bounds.min_chars, bounds.max_chars, "characters")]
            if bounds.min_words or bounds.max_words is not None:
                measured.append((len(words(text)), bounds.min_words, bounds.max_words, "words"))
            looks.append(_judge(measured))
        return looks


def _judge(measured: list[Bound]) -> Look:
    for size, low, high, unit in measured:
        if size < low:
            return Look("drop", "too_short", size, low, unit)
        if high is not None and size > high:
            return Look("drop", "too_long", size, high, unit)
    size, _, high, unit = measured[0]
    return Look(score=size, threshold=high, detail=unit)
