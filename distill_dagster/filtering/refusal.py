"""Refusal: the teacher declined, or spoke about itself, instead of answering."""

from __future__ import annotations

import re

from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.filtering._text import fold
from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase

#: English openings. None of them matches an answer such as "cannot be determined", which a task may call right.
PHRASES = (
    r"(?:i'm|i am|we are|we're)?\s*(?:very |so |really )?sorry\b",
    r"(?:i|we) (?:must |have to )?apologi[sz]e\b",
    r"(?:my apologies|apologies)\b",
    r"(?:i|we) (?:can't|cannot|can not|could not|couldn't|won't|will not|am unable|am not able|'m unable|'m not able)"
    r"(?: to)? (?:help|assist|answer|provide|comply|fulfil|fulfill|complete|do that|give|offer|share|support|discuss|"
    r"generate|create|process|advise)\b",
    r"i'm (?:unable|not able) to\b",
    r"(?:i am|i'm) (?:just |only )?an? (?:ai|artificial intelligence|language model|large language model|assistant)\b",
    r"as an? (?:ai|artificial intelligence|large language model|language model)\b",
    r"(?:i|we) (?:do not|don't) (?:have|feel comfortable)\b",
    r"(?:i|we) must (?:decline|refuse)\b",
    r"(?:unfortunately|regrettably),? (?:i|we)\b",
)
#: What may stand before such a phrase.
_OPENING = r"(?:^|[.!?:\n] ?)(?:(?:well|hi|hello|hmm|thank you|thanks|unfortunately|however),? )?"


class Rule(RuleBase):
    """Drops refusals by finish reason or by an English phrase at the start of one of the first sentences."""

    version = "1"

    class Params(Strict):
        phrases: list[str] = Field(default_factory=list, description="Further phrases, as plain text")
        within: int = Field(200, ge=1, description="Look at this many characters from the start")

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: declined (finish reason), phrase (the words are in `detail`)."""
        own = [re.escape(fold(phrase)) for phrase in self.params.phrases]
        pattern = re.compile(_OPENING + "(" + "|".join([*PHRASES, *own]) + ")")
        looks = []
        columns = (candidates.column(name) for name in ("task", "answer", "rationale", "finish_reason"))
        for task, answer, rationale, finish, asked in zip(*columns, candidates.inputs, strict=True):
            if finish in ("refusal", "content_filter"):
                looks.append(Look("drop", "declined", detail=f"finish_reason {finish}"))
                continue
            known = context.tasks.get(task)
            said = fold(answer or "").replace("\u2019", "'")
            # A label, or words copied from the input, are an answer however they sound.
            if (known and answer in known.labels) or (said and said in fold(asked).replace("\u2019", "'")):
                said = ""
            found = None
            for text in (said, fold(rationale or "").replace("\u2019", "'")):
                found = found or pattern.search(text[: self.params.within])
            looks.append(Look("drop", "phrase", detail=found.group(1)) if found else KEEP)
        return looks
