"""Schema: the answer is there, parses, and is one of the labels where the task has labels."""

from __future__ import annotations

import json
import math
import re
from typing import Literal

from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase

Form = Literal["number", "json"]

_NUMBER = re.compile(r"[-+\u2212]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
_UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffd\ud800-\udfff]")


class Rule(RuleBase):
    """Drops candidates whose answer cannot be what the task asks for."""

    version = "2"

    class Params(Strict):
        forms: dict[str, Form] = Field(default_factory=dict, description="What the answers of a task must parse as")

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: unknown_task, no_turns, unparsed, empty, unreadable, unknown_label, not_a_number, not_json."""
        columns = (candidates.column(name) for name in ("task", "messages", "answer"))
        rows = zip(*columns, candidates.seeds, strict=True)
        return [self._one(task, messages, answer, seed, context) for task, messages, answer, seed in rows]

    def _one(self, task, messages, answer, seed, context: Context) -> Look:
        known = context.tasks.get(task)
        if known is None:
            return Look("drop", "unknown_task", detail=task)
        roles = [entry["role"] for entry in messages or ()]
        if roles[-1:] != ["assistant"] or "user" not in roles:
            return Look("drop", "no_turns", detail="a user turn and a last assistant turn are needed")
        if answer is None:
            return Look("drop", "unparsed", detail="no answer was found in what the teacher wrote")
        if not answer.strip():
            return Look("drop", "empty")
        if _UNREADABLE.search(answer):
            return Look("drop", "unreadable", detail="control or replacement characters")
        labels = (seed or {}).get("choices") or known.labels
        if known.kind == "label" and labels and answer not in labels:
            return Look("drop", "unknown_label")
        form = self.params.forms.get(task)
        if form == "number" and not _is_number(answer):
            return Look("drop", "not_a_number")
        if form == "json" and not _is_json(answer):
            return Look("drop", "not_json")
        return KEEP


def _is_number(text: str) -> bool:
    """`1,200.5` is one; `1,5` and `1_5` are not, whose value depends on who reads them."""
    text = text.strip()
    return bool(_NUMBER.fullmatch(text)) and math.isfinite(float(text.replace(",", "").replace("\u2212", "-")))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True
