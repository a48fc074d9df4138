"""What the rules for personal data and for secrets share: looking at a whole candidate, and masking it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase
from distill_dagster.privacy.mask import Detector, Masker, find
from distill_dagster.records.messages import text_of

#: Columns of a candidate that hold text beside its messages.
COLUMNS = ("answer", "rationale", "input")


class PrivateRule(RuleBase):
    """Drops, masks or keeps candidates with findings of the rule's kinds, in what the student reads or says."""

    class Params(Strict):
        action: Literal["drop", "mask", "keep"] = Field(
            default="drop", description="mask: keep it with tags such as [EMAIL_1]; keep: only say what was found"
        )
        kinds: list[str] | None = Field(default=None, min_length=1, description="Only these kinds, such as EMAIL")

    params: Params
    #: Finds more than the built-in patterns.
    detector: Detector | None = None

    def wanted(self, kind: str) -> bool:
        """Whether the rule is about a kind."""
        raise NotImplementedError

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: found, masked. The score counts findings; `detail` names their kinds, never what was found."""
        names = [name for name in ("messages", *COLUMNS) if name in candidates.table.column_names]
        rows = candidates.table.select(names).to_pylist()
        return [self._one(row) for row in rows]

    def _one(self, row: Mapping[str, Any]) -> Look:
        found: Counter[str] = Counter()
        for text in dict.fromkeys(_texts(row)):
            found.update(one.kind for one in find(text, self.wanted, self.detector))
        if not found:
            return KEEP
        detail = ", ".join(f"{kind}: {count}" for kind, count in sorted(found.items()))
        if self.params.action == "drop":
            return Look("drop", "", found.total(), 0, detail)
        masks = self.params.action == "mask"
        return Look("keep", "masked" if masks else "found", found.total(), 0, detail, rewrite=masks)

    def rewrite(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The candidate with tags in place of what was found; equal values have equal tags.

        A tag that the answer brings along came from a question that was masked before it was sent, and means the same
        value as here: values are numbered by their first place in the input both times.
        """
        asked = [entry for entry in row["messages"] or () if entry["role"] != "assistant"]
        masker = Masker([text_of(asked)], self.wanted, self.detector)
        messages = [
            {**entry, "parts": [{**part, "text": _masked(masker.mask, part["text"])} for part in entry["parts"]]}
            for entry in row["messages"] or ()
        ]
        return {
            **row,
            "messages": messages,
            **{name: _masked(masker.mask, row[name]) for name in COLUMNS if name in row},
        }


def known_kinds(kinds: list[str] | None, known: Sequence[str]) -> list[str] | None:
    """The kinds, all of which a rule can find. ValueError names the first that it cannot."""
    for kind in kinds or ():
        if kind not in known:
            raise ValueError(f"this rule finds no {kind!r}, only {', '.join(known)}")
    return kinds


def _masked(mask: Callable[[str], str], text: str | None) -> str | None:
    return None if text is None else mask(text)


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    for entry in row["messages"] or ():
        yield from (part["text"] for part in entry["parts"] if part["text"])
    for name in COLUMNS:
        if row.get(name):
            yield row[name]
