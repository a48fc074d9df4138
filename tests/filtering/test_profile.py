"""Distributions before and after filtering add up to what was there."""

import json
import statistics
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_dagster.filtering._profile import BINS, OTHER, profile


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 400),
            st.sampled_from(["card arrival", "card_fee", "other", "a rather odd answer", ""]),
            st.sampled_from(["route", "sum"]),
            st.booleans(),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_counts_are_those_of_the_rows(make, candidate, rows):
    table, context = make(
        [
            candidate(at, "word " * size, answer, task=task, status="ok" if good else "failed")
            for at, (size, answer, task, good, _) in enumerate(rows)
        ]
    )
    kept = {at for at, row in enumerate(rows) if row[3] and row[4]}
    found = profile(table, kept, context.tasks)
    assert json.loads(json.dumps(found)) == found
    good = [(at, row) for at, row in enumerate(rows) if row[3]]
    if not good:
        assert found == {"lengths": {}, "labels": {}}
        return
    for name, sizes in (
        ("prompt", {at: row[0] for at, row in good}),
        ("answer", {at: len(row[1].replace("_", " ").split()) for at, row in good}),
    ):
        shown = found["lengths"][name]
        edges = shown["edges"]
        assert len(edges) - 1 == len(shown["before"]) == len(shown["after"]) <= BINS + 1
        for key, chosen in (("before", sizes), ("after", {at: sizes[at] for at in kept})):
            assert sum(shown[key]) == len(chosen)
            assert shown[f"median_{key}"] == (statistics.median(chosen.values()) if chosen else 0)
            for bar, count in enumerate(shown[key][:-1]):
                assert count == sum(edges[bar] <= size < edges[bar + 1] for size in chosen.values())
    labels = ("card arrival", "card_fee", "other")
    wanted = Counter(row[1] if row[1] in labels else OTHER for _, row in good if row[2] == "route")
    after = Counter(row[1] if row[1] in labels else OTHER for at, row in good if row[2] == "route" and at in kept)
    counted = found["labels"].get("route", {})
    assert {label: before for label, (before, _) in counted.items() if before} == wanted
    assert {label: stays for label, (_, stays) in counted.items() if stays} == after
    assert "sum" not in found["labels"]
