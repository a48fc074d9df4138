"""From what a model says to one of a task's labels."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_SIGNS = re.compile(r"[\W_]+")


def to_label(answer: str, labels: Sequence[str]) -> str:
    """The label that an answer equals but for case, spaces and punctuation; the stripped answer where none does."""
    answer = answer.strip()
    if answer in labels:
        return answer
    same = [label for label in labels if bare(label) == bare(answer)]
    return same[0] if len(same) == 1 and bare(answer) else answer


def bare(text: str) -> str:
    """A text's letters and digits, case folded: what two texts have in common that say the same."""
    return _SIGNS.sub("", unicodedata.normalize("NFKC", text).casefold())
