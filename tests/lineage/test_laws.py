"""Laws accept exactly what they should: each against a plain count."""

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distill_dagster.errors import LawError
from distill_dagster.lineage import laws
from distill_dagster.records import tables

COUNT = st.integers(-1, 4)


def holds(law, *args) -> bool:
    """Whether a law accepts."""
    try:
        law("finance/x", *args)
    except LawError as error:
        assert error.place == "finance/x" and error.reason
        return False
    return True


@given(st.integers(0, 8), COUNT, st.dictionaries(st.sampled_from("abc"), COUNT), COUNT, COUNT)
def test_conserved(candidates: int, kept: int, dropped: dict[str, int], failed: int, refused: int) -> None:
    counts = [kept, failed, refused, *dropped.values()]
    expected = sum(counts) == candidates and min(counts) >= 0
    assert holds(laws.conserved, candidates, kept, dropped, failed, refused) == expected


KEYS = st.lists(st.none() | st.sampled_from("ab"), max_size=4)


@given(KEYS, KEYS)
@example(["a", None], [None, "a"])
@example(["a", "a"], ["a"])
@example([None], [None, None])
def test_looked(called: list[str | None], looked_at: list[str | None]) -> None:
    """A call without a key was refused, and so was a look without one."""
    calls = [{"request_key": key, "status": "ok" if key else "refused"} for key in called]
    looks = [{"request_key": key, "verdict": "mask" if key else "refuse"} for key in looked_at]
    tabled = tables.build("egress", looks), tables.build("call", calls)
    assert holds(laws.looked, *tabled) == (Counter(called) == Counter(looked_at))


def test_a_refusal_has_no_key_and_a_call_has_one() -> None:
    for status, key, verdict, ok in (
        ("refused", None, "refuse", True),
        ("refused", "a", "refuse", False),
        ("refused", None, "send", False),
        ("failed", None, "send", False),
        ("failed", "a", "send", True),
        ("ok", "a", "refuse", False),
    ):
        calls = tables.build("call", [{"request_key": key, "status": status}])
        looks = tables.build("egress", [{"request_key": key, "verdict": verdict}])
        assert holds(laws.looked, looks, calls) == ok, (status, key, verdict)


def test_no_look_is_left_over() -> None:
    assert holds(laws.accounted, []) and not holds(laws.accounted, [{}])


@given(st.lists(st.tuples(st.sampled_from(["gold", "teacher"]), st.none() | st.integers(0, 3)), max_size=5))
def test_grounded(examples) -> None:
    table = tables.build("example", [{"origin": origin, "call_no": call} for origin, call in examples])
    assert holds(laws.grounded, table) == all((origin == "gold") == (call is None) for origin, call in examples)


@given(st.lists(st.none() | st.integers(0, 6), max_size=6), st.lists(st.integers(0, 6), max_size=6))
@example([None], [])
@example([0], [])
def test_no_orphan(references, known) -> None:
    column = tables.build("example", [{"call_no": call} for call in references])["call_no"]
    calls = tables.build("call", [{"call_no": call} for call in known])["call_no"]
    expected = all(call is None or call in known for call in references)
    assert holds(laws.no_orphan, column, calls, "examples") == expected


CALLS = st.lists(st.tuples(st.booleans(), st.none() | st.integers(-2, 3)), max_size=5)


@given(CALLS, st.integers(0, 8))
@example([(True, 2), (True, -2)], 0)
@example([(False, 3), (False, -3)], 0)
def test_spend(calls, paid: int) -> None:
    table = tables.build("call", [{"reused": reused, "cost_micros": cost} for reused, cost in calls])
    costs = [(reused, cost or 0) for reused, cost in calls]
    expected = (
        sum(cost for _, cost in costs) == paid
        and all(cost >= 0 for _, cost in costs)
        and not any(cost for reused, cost in costs if reused)
    )
    assert holds(laws.spend, table, paid) == expected


ROW = st.tuples(
    st.sampled_from(["gold", "unlabeled"]),
    st.sampled_from(["t", "u"]),
    st.none() | st.sampled_from("ab"),
    st.none() | st.just("s"),
)


@given(st.lists(ROW, max_size=6))
def test_disjoint(rows) -> None:
    table = tables.build(
        "seed", [{"part": part, "task": task, "subject_key": key, "skeleton": bone} for part, task, key, bone in rows]
    )

    def apart(column: int) -> bool:
        pairs = [(x, y) for x in rows for y in rows if x[1] == y[1] and x[0] != y[0]]
        return not any(x[column] is not None and x[column] == y[column] for x, y in pairs)

    assert holds(laws.disjoint, table, ("subject_key", "skeleton")) == (apart(2) and apart(3))
    assert holds(laws.disjoint, table, ("subject_key",)) == apart(2)
    assert holds(laws.disjoint, table, ())


def test_disjoint_by_another_column() -> None:
    table = tables.build("example", [{"split": s, "task": "t", "subject_key": "a"} for s in ("train", "test")])
    with pytest.raises(LawError, match="subject_key 'a' of task 't'.*'train' and 'test'"):
        laws.disjoint("p", table, ["subject_key"], by="split")


@given(st.lists(st.none() | st.sampled_from("abc")))
def test_counts(values) -> None:
    found = laws.counts(values)
    assert found == Counter(value or "unknown" for value in values)
    assert list(found) == sorted(found)
