"""Cron strings: what is taken here must be taken by Dagster as well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.config.schedule import cron_fault, timezone_fault

GOOD = [
    "0 3 * * 1",
    "*/15 * * * *",
    "0 0 1,15 * mon-fri",
    "5-59/10 0-6 * JAN-mar *",
    "@daily",
    "0 0 29 2 *",
    "0 0 * * 7",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_cron_strings(text: str) -> None:
    assert cron_fault(text) == ""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("0 3 * *", "4 fields"),
        ("0 3 * * 1 *", "6 fields"),
        ("60 3 * * *", "0 to 59"),
        ("0 3 0 * *", "1 to 31"),
        ("0 3 * 13 *", "1 to 12"),
        ("0 3 * * someday", "0 to 7"),
        ("0 5-3 * * *", "backwards"),
        ("*/0 * * * *", "step"),
        ("0 3 , * *", "not a value"),
        ("0 0 30 2 *", "never"),
        ("0 0 31 4,6 *", "never"),
        ("@often", "@daily"),
        ("", "0 fields"),
    ],
)
def test_bad_cron_strings(text: str, word: str) -> None:
    assert word in cron_fault(text)


FIELD = st.one_of(
    st.just("*"),
    st.integers(0, 61).map(str),
    st.tuples(st.integers(0, 31), st.integers(0, 31)).map(lambda ends: f"{ends[0]}-{ends[1]}"),
    st.integers(0, 40).map(lambda step: f"*/{step}"),
    st.lists(st.integers(0, 23).map(str), min_size=1, max_size=3).map(",".join),
    st.sampled_from(["mon", "JAN", "x", "1-", "-"]),
)


@given(st.lists(FIELD, min_size=4, max_size=6).map(" ".join))
def test_what_is_taken_here_is_taken_by_dagster(text: str) -> None:
    from dagster._utils.schedules import is_valid_cron_string

    if not cron_fault(text):
        assert is_valid_cron_string(text)


@pytest.mark.parametrize(("name", "good"), [("UTC", True), ("Europe/Berlin", True), ("Berlin", False), ("../x", False)])
def test_time_zones(name: str, good: bool) -> None:
    assert (timezone_fault(name) == "") is good
