"""The accounts close, whatever the candidates, the rules, their order and the mode."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_dagster.config.models import Block
from distill_dagster.errors import LawError
from distill_dagster.filtering import engine
from distill_dagster.filtering.base import Look, RuleBase

RULES = tuple(
    Block.model_validate(block)
    for block in (
        {"name": "schema"},
        {"name": "length", "max_chars": 8},
        {"name": "truncation"},
        {"name": "refusal"},
        {"name": "exact_duplicate"},
        {"name": "near_duplicate", "threshold": 0.5},
        {"name": "verifier", "undecided": "drop", "tasks": ["sum"]},
        {"name": "decontamination"},
        {"name": "source_cap", "by": "answer", "most": 2},
        {"name": "length_bias", "least": 3},
    )
)
TEXTS = (
    "where is my card",
    "Where is my  card",
    "where is my new card today",
    "where is my new card now",
    "7 and 8",
    "",
)
ANSWERS = ("other", "card_fee", "15", "", "I'm sorry, I can't help.", "quite a long answer")

rows = st.lists(
    st.tuples(
        st.sampled_from(TEXTS),
        st.sampled_from(ANSWERS),
        st.sampled_from(("route", "sum")),
        st.sampled_from(("ok", "ok", "ok", "failed", "refused")),
        st.sampled_from(("stop", "stop", "length")),
    ),
    max_size=14,
)
relaxed = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def table_of(make, candidate, drawn):
    return make(
        [
            candidate(number * 3, text, answer, task=task, status=status, failure="timeout", finish_reason=finish)
            for number, (text, answer, task, status, finish) in enumerate(drawn)
        ],
        seeds=[
            {"seed_no": 1000 + at, "task": "sum", "part": "gold", "messages": [], "answer": "one word or two " * at}
            for at in range(5)
        ],
        evaluation=["7 and 8"],
    )


@relaxed
@given(drawn=rows, rules=st.lists(st.sampled_from(RULES), max_size=6), mode=st.sampled_from(("first", "all")))
def test_every_candidate_has_one_fate(make, candidate, drawn, rules, mode):
    table, context = table_of(make, candidate, drawn)
    outcome = engine.run(table, rules, mode, context)
    decisions = outcome.decisions.to_pylist()
    assert [row["candidate_no"] for row in decisions] == [row * 3 for row in range(len(drawn))]
    fates = [row["verdict"] for row in decisions]
    failed = [row[3] == "failed" for row in drawn]
    refused = [row[3] == "refused" for row in drawn]
    assert [fate == "failed" for fate in fates] == failed
    assert [fate == "refused" for fate in fates] == refused
    assert outcome.failed == sum(failed) and outcome.refused == sum(refused) and outcome.candidates == len(drawn)
    assert outcome.kept == [row["candidate_no"] for row in decisions if row["verdict"] == "keep"]
    dropped = [row["reason"] for row in decisions if row["verdict"] == "drop"]
    assert outcome.funnel == {reason: dropped.count(reason) for reason in outcome.funnel}
    assert len(outcome.kept) + sum(outcome.funnel.values()) + outcome.failed + outcome.refused == len(drawn)
    assert len({row["record_id"] for row in decisions}) >= len({row["record_id"] for row in table.to_pylist()})
    for row in decisions:
        looks = row["looks"]
        if row["verdict"] in ("failed", "refused"):
            assert not looks and row["reason"] == "timeout"
            continue
        bad = [look for look in looks if look["verdict"] == "drop"]
        assert bool(bad) == (row["verdict"] == "drop")
        if bad:
            assert row["reason"] == ".".join(part for part in (bad[0]["rule"], bad[0]["reason"]) if part)
        assert len(looks) == (len(rules) if mode == "all" or not bad else looks.index(bad[0]) + 1)


@relaxed
@given(drawn=rows, rules=st.lists(st.sampled_from(RULES), max_size=6))
def test_both_modes_decide_alike(make, candidate, drawn, rules):
    table, context = table_of(make, candidate, drawn)
    first, whole = (engine.run(table, rules, mode, context) for mode in ("first", "all"))
    assert (first.kept, first.funnel) == (whole.kept, whole.funnel)
    assert first.duplicates.equals(whole.duplicates)
    assert first.decisions.column("reason").to_pylist() == whole.decisions.column("reason").to_pylist()


@relaxed
@given(drawn=rows)
def test_a_duplicate_has_a_stand_in_that_was_alive(make, candidate, drawn):
    table, context = table_of(make, candidate, drawn)
    outcome = engine.run(table, RULES, "first", context)
    reason = {row["candidate_no"]: row["reason"] for row in outcome.decisions.to_pylist()}
    order = [block.name for block in RULES]
    twins = outcome.duplicates.to_pylist()
    by_rule = {number for number, why in reason.items() if why in ("exact_duplicate", "near_duplicate")}
    assert {row["dropped_no"] for row in twins} == by_rule and len(twins) == len(by_rule)
    cluster = {row["dropped_no"]: row["cluster"] for row in twins}
    for row in twins:
        assert reason[row["dropped_no"]] == row["rule"]
        fate = reason[row["kept_no"]]
        assert fate is None or order.index(fate.split(".")[0]) > order.index(row["rule"])
        assert cluster.get(row["kept_no"], row["cluster"]) == row["cluster"]


def test_a_dropped_candidate_stands_in_for_nobody(make, candidate):
    rows = [candidate(0, "where is my card", finish_reason="length"), candidate(1, "where is my card")]
    table, context = make(rows)
    for rule in ("exact_duplicate", "near_duplicate"):
        for mode in ("first", "all"):
            outcome = engine.run(table, [Block(name="truncation"), Block(name=rule)], mode, context)
            assert outcome.kept == [1] and outcome.duplicates.num_rows == 0
    assert outcome.decisions.to_pylist()[0]["looks"][1]["detail"] == "twin 1"


def test_the_same_input_gives_the_same_tables(make, candidate):
    rows = [candidate(number, TEXTS[number % 5] + " x" * (number % 3)) for number in range(20)]
    table, context = make(rows, evaluation=["7 and 8"])
    one, two = (engine.run(table, RULES, "all", context) for _ in range(2))
    assert one.decisions.equals(two.decisions) and one.duplicates.equals(two.duplicates)


@pytest.mark.parametrize(
    ("given_looks", "match"),
    [
        (lambda n: [Look()] * (n - 1), "1 looks for 2"),
        (lambda n: [Look("maybe")] * n, "verdict 'maybe'"),  # pyright: ignore[reportArgumentType]
        (lambda n: [Look("drop", twin=99)] * n, "cannot stand in"),
        (lambda n: [Look("drop", twin=0)] * n, "cannot stand in"),
    ],
)
def test_a_rule_that_breaks_its_promise_is_named(make, candidate, monkeypatch, given_looks, match):
    class Bad(RuleBase):
        def look(self, candidates, context):
            return given_looks(len(candidates))

    monkeypatch.setattr("distill_dagster.filtering.truncation.Rule", Bad)
    table, context = make([candidate(0, "a"), candidate(1, "b")])
    with pytest.raises(LawError, match=match) as error:
        engine.run(table, [Block(name="truncation")], "first", context)
    assert "truncation" in error.value.place


def test_numbers_given_twice_are_refused(make, candidate):
    table, context = make([candidate(0, "a"), candidate(0, "b")])
    with pytest.raises(LawError, match="same candidate_no"):
        engine.run(table, [], "first", context)


def test_versions_name_every_rule():
    assert set(engine.versions(RULES)) == {block.name for block in RULES}
