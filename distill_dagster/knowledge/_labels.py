"""From what a model says to one of a task's labels."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))
#: `1,000` is `1000`; a sign between two numbers stands close to both.
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_BETWEEN = re.compile(r"(?<=\d)\s*([*/-])\s*(?=\d)")
#: Signs that say something where they stand: in a number, before one, or at the end of a name (`A-`, `C#`).
_SAYS = r"(?<=\d)[.,:/*-](?=\d)|(?<![^\W_])[-.](?=[\d.])|(?<=[^\W_])-(?!\S)|(?<=[^\W_])#|[<>](?=\s*[-=\d.])|[%\u2030]"
_DRESSING = re.compile(rf"(?!{_SAYS})[\W_]")


def to_label(answer: str, labels: Sequence[str]) -> str:
    """The label that an answer equals but for case, spaces and punctuation; the stripped answer where none does.

    A picture beside it (`✅ yes`) is punctuation; a sign, a decimal point or a vowel sign is none.
    """
    answer = answer.strip()
    if answer in labels:
        return answer
    for said in (bare(answer), bare("".join(char for char in answer if unicodedata.category(char) != "So"))):
        same = [label for label in labels if bare(label) == said]
        if said and same:
            return same[0] if len(same) == 1 else answer
    return answer


def bare(text: str) -> str:
    """What two texts have in common that say the same: no case, blanks or punctuation.

    Letters with their accents and vowel signs, digits, mathematical signs, currencies and pictures stay, and so do
    signs in numbers: `1.0` is not `10`, nor `-1` the same as `1`.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_DASHES)
    return _DRESSING.sub(_kept, _BETWEEN.sub(r"\1", _THOUSANDS.sub("", folded)))


def _kept(found: re.Match[str]) -> str:
    char = found.group()
    sort = unicodedata.category(char)
    return char if sort[0] == "M" or (sort in ("Sm", "Sc", "So") and char not in "|~<>") else ""
