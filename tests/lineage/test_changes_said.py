"""What differs between two configurations, as `status` says it."""

from __future__ import annotations

import pytest

from distill_dagster.lineage.changes import changes, files

RULES = [{"name": "schema"}, {"name": "pii", "action": "mask"}]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"leaks": "refuse"}, {"leaks": "drop"}, "leaks (refuse → drop)"),
        ({"leaks": None}, {"leaks": "drop"}, "leaks (null → drop)"),
        ({"a": 1}, {"a": 1.0, "b": [1]}, "b (new)"),
        ({"pair": (1, 2)}, {"pair": [1, 3]}, "pair ([1, 2] → [1, 3])"),
        ({"rules": RULES}, {"rules": [RULES[0], {"name": "pii", "action": "drop"}]}, "rules.pii.action (mask → drop)"),
        ({"rules": RULES}, {"rules": [*RULES, {"name": "length"}]}, "rules.length (new)"),
        ({"rules": RULES}, {"rules": RULES[:1]}, "rules.pii (gone)"),
        ({"rules": RULES}, {"rules": RULES[::-1]}, "rules (another order)"),
        ({"text": "x" * 50}, {"text": "y"}, f"text ({'x' * 38} … → y)"),
        ({}, dict.fromkeys("abcdef", 1), "a (new: 1), b (new: 1), c (new: 1), d (new: 1) and 2 more"),
        ({"a": 1}, {"a": 1}, ""),
    ],
)
def test_each_value_with_its_place(before, after, said: str) -> None:
    assert changes(before, after) == said


def test_files_by_name_alone() -> None:
    before = {"files": {"file:a.csv": "1", "file:b.csv": "2"}}
    assert files(before, {"files": {"file:a.csv": "1", "file:b.csv": "3", "hub/set": "main"}}) == "b.csv, hub/set"
