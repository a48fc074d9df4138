"""What differs between two configurations, in a few words for a person."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from distill_dagster.records.identity import digest

#: Differences that are said; of more, how many more there are.
MOST = 4
#: Characters of a value.
LENGTH = 40
#: Blocks in a list are told apart by the first of these that they have: a rule is in its place by its name.
NAMES = ("name", "path")
NOTHING = object()


def changes(before: Any, after: Any) -> str:
    """Each value that differs, with its place: `rules.near_duplicate.threshold (0.8 → 0.9)`; empty where none does."""
    found = [f"{place} ({said})" for place, said in _differences("", _plain(before), _plain(after))]
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return ", ".join(found[:MOST]) + more


def files(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Names of what lies outside the store and is another one now; digests say nothing to a person."""
    found = []
    for place, _ in _differences("", {"files": {}} | _plain(before), {"files": {}} | _plain(after)):
        found.append(place.removeprefix("files.").removeprefix("file:"))
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return ", ".join(found[:MOST]) + more


def _plain(value: Any) -> Any:
    """As a run record has it: a tuple is a list there."""
    return json.loads(json.dumps(value, default=str))


def _differences(place: str, before: Any, after: Any) -> Iterator[tuple[str, str]]:
    if NOTHING not in (before, after) and digest(before) == digest(after):  # 1 and 1.0 are one, as in a run record
        return
    one, other = _by_name(before), _by_name(after)
    if one is not None and other is not None and (one or other):
        if one.keys() == other.keys() and list(one) != list(other) and isinstance(before, list):
            yield place, "another order"
        for name in [*one, *(name for name in other if name not in one)]:
            inside = f"{place}.{name}" if place else name
            yield from _differences(inside, one.get(name, NOTHING), other.get(name, NOTHING))
    elif before is NOTHING:
        yield place, "new" if isinstance(after, dict | list) else f"new: {_said(after)}"
    elif after is NOTHING:
        yield place, "gone"
    else:
        yield place, f"{_said(before)} → {_said(after)}"


def _by_name(value: Any) -> dict[str, Any] | None:
    """The entries of an object, or of a list whose entries have names of their own; None for anything else."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        return None
    names = [next((str(entry[key]) for key in NAMES if entry.get(key)), "") for entry in value]
    return dict(zip(names, value, strict=True)) if all(names) and len(set(names)) == len(names) else None


def _said(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LENGTH else text[: LENGTH - 2] + " …"
