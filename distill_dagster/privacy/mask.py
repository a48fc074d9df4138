"""Finding identifiers and secrets in texts, and putting tags in their place.

Equal values of one record get equal tags (`[EMAIL_1]`), so that a reader can still tell who is who.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from distill_dagster.privacy import personal, secrets
from distill_dagster.privacy.found import Finding, joined
from distill_dagster.privacy.plain import plain

#: Bumped by a person when other things are found or masked.
VERSION = "1"

RANK = (*secrets.KINDS, *personal.KINDS)
WITHHELD = "[WITHHELD]"

_TAG = re.compile(r"\[[A-Z]+(?:_[A-Z]+)*_\d{1,9}\]")
_ROUNDS = 8


def find(text: str, wanted: Callable[[str], bool] = bool) -> list[Finding]:
    """What a text holds of the wanted kinds (all by default), in order and without overlap.

    Spans are those of the text itself.
    """
    form = plain(text)
    found = joined((one for one in (*secrets.find(form.text), *personal.find(form.text)) if wanted(one.kind)), RANK)
    return [Finding(*form.span(one.start, one.end), one.kind, one.value) for one in found]


def is_secret(kind: str) -> bool:
    """Whether a kind of finding is a secret; all others are personal data."""
    return kind in secrets.KINDS


class Masker:
    """Masks the texts of one record: what `wanted` says of a kind, all kinds by default.

    Attributes:
        counts: How many stretches were masked, by kind.
    """

    def __init__(self, texts: Sequence[str], wanted: Callable[[str], bool] = bool) -> None:
        self._wanted = wanted
        #: Tags that the record brought along stand for nothing that is masked here.
        self._taken = {tag for text in texts for tag in _TAG.findall(text)}
        self._tags: dict[tuple[str, str], str] = {}
        self._used: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def mask(self, text: str) -> str:
        """The text without anything that `find` finds. A text that will not come clean is withheld whole."""
        for _ in range(_ROUNDS):
            found = find(text, self._wanted)
            if not found:
                return text
            pieces, at = [], 0
            for one in found:
                pieces += [text[at : one.start], self._tag(one)]
                at = one.end
                self.counts[one.kind] += 1
            text = "".join([*pieces, text[at:]])
        return WITHHELD

    def _tag(self, one: Finding) -> str:
        known = self._tags.get((one.kind, one.value))
        while known is None:
            self._used[one.kind] += 1
            tag = f"[{one.kind}_{self._used[one.kind]}]"
            if tag not in self._taken:
                known = self._tags[one.kind, one.value] = tag
        return known


def mask(texts: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The texts of one record masked together, and how often each kind was masked."""
    masker = Masker(texts)
    masked = [masker.mask(text) for text in texts]
    return masked, dict(sorted(masker.counts.items()))
