"""Reading a reply that has to be one JSON object of a given shape.

The whole reply is the object, but for white space and one code fence around it. Nothing is searched for inside a
longer text: a judge may quote what it judges, and a forged verdict in there must not count as its own.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError

from distill_dagster.config.models import Strict
from distill_dagster.teachers.base import Response

LONGEST = 100_000

_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n\s*```\Z", re.S)


class Reply(Strict):
    """Shape of a reply; unknown keys are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Marked(Reply):
    """A judge's reply: it repeats the mark, which no judged text can know."""

    mark: str


Shape = TypeVar("Shape", bound=Reply)


def read(response: Response, shape: type[Shape], mark: str | None = None) -> tuple[Shape | None, str | None]:
    """The reply in its shape, or the class of what is wrong with it.

    Classes: the call's own failure, truncated, not_json, not_per_schema, wrong_mark.
    """
    if response.failure is not None:
        return None, response.failure
    if response.finish_reason == "length":
        return None, "truncated"
    text = response.text.strip()
    inside = _FENCED.match(text)
    text = inside.group(1) if inside else text
    try:
        if len(text) > LONGEST:
            return None, "not_json"
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None, "not_json"
    try:
        found = shape.model_validate(value)
    except ValidationError:
        return None, "not_per_schema"
    if isinstance(found, Marked) and found.mark != mark:
        return None, "wrong_mark"
    return found, None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
