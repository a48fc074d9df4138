"""Refusal: the teacher declined, or spoke about itself, instead of answering.

Phrases in English, and the usual ones in German, French, Spanish, Chinese and Japanese. In these an apology alone is no
refusal, since a translation may be one: they say what cannot be done as well.
"""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from distill_dagster.config.models import Strict
from distill_dagster.filtering._text import fold
from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase

_CANNOT = r"(?:can't|cannot|can not|could not|couldn't|won't|will not|am unable|am not able|'m unable|'m not able)"
_DO = (
    r"(?:help|assist|answer|provide|comply|fulfil|fulfill|complete|do that|do this|do so|give|offer|share|support|"
    r"discuss|generate|create|process|advise|engage|respond|continue with)"
)
#: Openings. None of them matches an answer such as "cannot be determined", which a task may call right.
PHRASES = (
    r"(?:i'm|i am|we are|we're)?\s*(?:very |so |really )?sorry\b",
    r"(?:i|we) (?:must |have to )?apologi[sz]e\b",
    r"(?:my apologies|apologies)\b",
    rf"(?:i|we) ?{_CANNOT}(?:,? (?:and|or) (?:will not|won't|should not|shouldn't))?(?: to)? {_DO}\b",
    rf"(?:i'm|i am|we're|we are) afraid(?: that)? (?:i|we) {_CANNOT}\b",
    r"(?:i'd|i would|we'd|we would) (?:rather|prefer) not (?:to )?(?:answer|say|help|assist|provide|discuss|comment)\b",
    r"i'm (?:unable|not able) to\b",
    r"(?:i am|i'm) (?:just |only )?an? (?:ai|artificial intelligence|language model|large language model|assistant)\b",
    r"as an? (?:ai|artificial intelligence|large language model|language model)\b",
    r"(?:i|we) (?:do not|don't) (?:have|feel comfortable)\b",
    r"(?:i|we) must (?:decline|refuse)\b",
    r"(?:unfortunately|regrettably),? (?:i|we)\b",
    r"es tut mir leid,? (?:aber )?(?:ich|das|dies|dabei|dazu|darauf|hierbei) kann\b",
    r"(?:leider kann ich|ich kann (?:dir |ihnen |leider )*(?:dabei|damit|darauf|diese \w+|das|dies))"
    r" (?:\w+ ){0,4}nicht\b",
    r"als (?:ki|ki-\w+|(?:ein )?sprachmodell)\b",
    r"(?:je suis )?d[e\u00e9]sol[e\u00e9]e?,? (?:mais )?je ne (?:peux|suis|pourrai)\b",
    r"je ne (?:peux|suis) pas (?:en mesure|capable|r[e\u00e9]pondre|vous aider|t'aider|fournir)\b",
    r"en tant qu(?:e |'\s?)(?:ia|intelligence artificielle|mod[e\u00e8]le de langage)\b",
    r"lo siento,? (?:pero )?no (?:puedo|me es posible)\b",
    r"no puedo (?:ayudar|responder|proporcionar|cumplir|ofrecer)",
    r"como (?:una )?(?:ia|inteligencia artificial|modelo de lenguaje)\b",
    r"(?:很|非常)?(?:抱歉|对不起|對不起)[,\u3001 ]*(?:但)?我?(?:无法|無法|不能|没有办法)",
    r"我(?:无法|無法|不能)(?:回答|提供|协助|協助|帮助|幫助|满足|完成|生成)",
    r"作为(?:一个|一款|一名)?(?:ai|人工智能|大?语言模型)",
    r"申し訳(?:ありません|ございません)が",
)
#: What may stand before such a phrase.
_OPENING = (
    r"(?:^[\s*_>#\"'`(\u201c\u201e\u00ab]*|[.!?:\u3002] ?)"
    r"(?:(?:well|hi|hello|hmm|thank you|thanks|unfortunately|however),? )?"
)


class Rule(RuleBase):
    """Drops refusals by finish reason or by a phrase at the start of one of the first sentences."""

    version = "2"

    class Params(Strict):
        phrases: list[str] = Field(default_factory=list, description="Further phrases, as plain text")
        within: int = Field(200, ge=1, description="Look at this many characters from the start")

        @field_validator("phrases")
        @classmethod
        def _say_something(cls, phrases: list[str]) -> list[str]:
            if not all(map(_folded, phrases)):
                raise ValueError("an empty phrase stands in every answer; leave it out")
            return phrases

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: declined (finish reason), phrase (the words are in `detail`)."""
        own = [re.escape(_folded(phrase)) for phrase in self.params.phrases]
        pattern = re.compile(_OPENING + "(" + "|".join([*PHRASES, *own]) + ")")
        looks = []
        columns = (candidates.column(name) for name in ("task", "answer", "rationale", "finish_reason"))
        for task, answer, rationale, finish, asked in zip(*columns, candidates.inputs, strict=True):
            if finish in ("refusal", "content_filter"):
                looks.append(Look("drop", "declined", detail=f"finish_reason {finish}"))
                continue
            known = context.tasks.get(task)
            said = _folded(answer or "")
            # A label, or words copied from the input, are an answer however they sound.
            if (known and answer in known.labels) or (said and said in _folded(asked)):
                said = ""
            found = None
            for text in (said, _folded(rationale or "")):
                found = found or pattern.search(text[: self.params.within])
            looks.append(Look("drop", "phrase", detail=found.group(1)) if found else KEEP)
        return looks


def _folded(text: str) -> str:
    return fold(text).replace("\u2019", "'")
