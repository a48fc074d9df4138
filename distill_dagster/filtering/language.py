"""Language: the text is in the language that is expected, as far as its length lets one tell (Lui and Baldwin 2012)."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any, Literal

from pydantic import Field, field_validator

from distill_dagster.config.models import Strict
from distill_dagster.errors import ConfigError
from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase

#: What the identifier calls figures, code and the like (ISO 639-2).
NO_LANGUAGE = "zxx"
#: A Chinese, Japanese or Korean character says about as much as three letters.
#: Tags that data sets use for a language whose texts the identifier gives another tag, or several.
_SAME = {"nb": "no", "nn": "no", "iw": "he", "fil": "tl", "cmn": "zh", "yue": "zh", "ji": "yi", "mo": "ro"}
_DENSE = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")


class Rule(RuleBase):
    """Drops texts in another language. Short ones are unknown and kept; so are those that may be of an expected one.

    The score is the probability of the expected languages together.
    """

    version = "2"

    class Params(Strict):
        expected: list[str] | None = Field(
            default=None,
            min_length=1,
            description="Languages that may stand, such as [en, fr]; by default the language of the seed",
        )
        of: Literal["answer", "input", "rationale"] = "answer"
        min_letters: int = Field(
            default=24, ge=1, description="Shorter texts are unknown; a Chinese character counts as three letters"
        )
        min_probability: float = Field(
            default=0.01, gt=0, le=1, description="Drop where the expected languages together are less likely than this"
        )

        @field_validator("expected")
        @classmethod
        def _tags(cls, expected: list[str] | None) -> list[str] | None:
            for tag in expected or ():
                if not re.fullmatch(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*", tag):
                    raise ValueError(f"{tag!r} is no tag of a language; write a code of ISO 639-1 such as en")
            return expected

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: other_language; unknown is kept. `detail` names the likeliest language."""
        texts = candidates.inputs if self.params.of == "input" else candidates.column(self.params.of)
        rows = zip(texts, candidates.column("task"), candidates.seeds, candidates.column("seed_no"), strict=True)
        strange = [tag for tag in self.params.expected or () if _primary(tag) not in _known()]
        if strange:
            reason = f"the identifier knows no language {strange[0]!r}, so every text would be another one."
            raise ConfigError("filtering rule language.expected", reason, f"It knows {', '.join(sorted(_known()))}.")
        looks = []
        for text, task, seed, number in rows:
            known = context.tasks.get(task)
            label = self.params.of == "answer" and known is not None and text in known.labels
            seed = seed or context.seeds.get(number)
            expected = self.params.expected or ([seed["language"]] if seed and seed.get("language") else None)
            looks.append(KEEP if label or expected is None else self._one(text or "", expected))
        return looks

    def _one(self, text: str, expected: list[str]) -> Look:
        if _letters(text) < self.params.min_letters:
            return Look(reason="unknown", detail="too short to tell")
        ranked = identify(text)
        if ranked[0][0] == NO_LANGUAGE:
            return Look(reason="unknown", detail="no language: figures, code or names")
        wanted = {_primary(tag) for tag in expected}
        if not wanted & _known():
            return Look(reason="unknown", detail=f"the identifier does not know {', '.join(sorted(wanted))}")
        score = sum(probability for tag, probability in ranked if _primary(tag) in wanted)
        bound = self.params.min_probability
        if score >= bound:
            return Look(score=score, threshold=bound, detail=ranked[0][0])
        return Look("drop", "other_language", score, bound, ranked[0][0])


def identify(text: str) -> list[tuple[str, float]]:
    """Languages (ISO 639-1) with their probabilities, the likeliest first; the same every time."""
    return [(str(tag), float(probability)) for tag, probability in _identifier().rank(text)]


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _letters(text: str) -> int:
    return sum(3 if _dense(char) else 1 for char in text if char.isalpha())


def _dense(char: str) -> bool:
    return ord(char) > 0x10FF and unicodedata.name(char, "").startswith(_DENSE)


def _primary(tag: str) -> str:
    primary = tag.replace("_", "-").partition("-")[0].casefold()
    return _SAME.get(primary, primary)


@cache
def _known() -> frozenset[str]:
    return frozenset(_primary(str(tag)) for tag in _identifier().nb_classes) - {NO_LANGUAGE}
