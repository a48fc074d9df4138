"""Finding identifiers and secrets in texts, and putting tags in their place.

Equal values of one record get equal tags (`[EMAIL_1]`), so that a reader can still tell who is who.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from distill_dagster.privacy import personal, secrets
from distill_dagster.privacy.found import Finding, joined
from distill_dagster.privacy.plain import plain

#: Bumped by a person when other things are found or masked.
VERSION = "1"

RANK = (*secrets.KINDS, *personal.KINDS)
WITHHELD = "[WITHHELD]"

#: Finds more in a plain text; findings may overlap.
Detector = Callable[[str], Iterable[Finding]]

_TAG = re.compile(r"\[[A-Z]+(?:_[A-Z]+)*_\d{1,9}\]")
_ROUNDS = 8


def find(text: str, wanted: Callable[[str], bool] = bool, detector: Detector | None = None) -> list[Finding]:
    """What a text holds of the wanted kinds (all by default), in order and without overlap.

    Spans are those of the text itself. Where findings overlap, kinds of the built-in patterns come first.
    """
    form = plain(text)
    seen = [*secrets.find(form.text), *personal.find(form.text)]
    if detector is not None:
        seen += _beside_tags(form.text, detector(form.text))
    found = joined((one for one in seen if wanted(one.kind)), RANK)
    return [Finding(*form.span(one.start, one.end), one.kind, one.value) for one in found]


def _beside_tags(text: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """What of the findings stands outside of tags: a model takes a tag for a name, and it stands for none."""
    tags = [found.span() for found in _TAG.finditer(text)]
    for one in findings:
        at = one.start
        for start, end in [*(tag for tag in tags if tag[0] < one.end and one.start < tag[1]), (one.end, one.end)]:
            if any(char.isalnum() for char in text[at:start]):
                whole = (at, start) == (one.start, one.end)
                yield one if whole else Finding(at, start, one.kind, text[at:start].strip().casefold())
            at = max(at, end)


def is_secret(kind: str) -> bool:
    """Whether a kind of finding is a secret; all others are personal data."""
    return kind in secrets.KINDS


class Masker:
    """Masks the texts of one record: what `wanted` says of a kind, all kinds by default.

    Args:
        texts: Texts whose tags are taken already.
        wanted: Whether a kind is masked.
        detector: Finds more than the built-in patterns.

    Attributes:
        counts: How many stretches were masked, by kind.
    """

    def __init__(
        self, texts: Sequence[str], wanted: Callable[[str], bool] = bool, detector: Detector | None = None
    ) -> None:
        self._wanted, self._detector = wanted, detector
        #: Tags that the record brought along stand for nothing that is masked here.
        self._taken = {tag for text in texts for tag in _TAG.findall(text)}
        self._tags: dict[tuple[str, str], str] = {}
        self._used: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def mask(self, text: str) -> str:
        """The text without anything that `find` finds. A text that will not come clean is withheld whole."""
        for _ in range(_ROUNDS):
            found = find(text, self._wanted, self._detector)
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
