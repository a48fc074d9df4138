"""What reviewers and a judge say, as looks of filter rules; and rulings where reviewers differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.config.models import Block
from distill_dagster.filtering import engine
from distill_dagster.filtering._review import VERDICTS, ruling, rulings
from distill_dagster.filtering.base import Context


def vote(reviewer: str, verdict: str, *critical: str, record: str = "r", comment: str | None = None) -> dict:
    """A VERDICT row."""
    return {
        "candidate_record_id": record,
        "reviewer": reviewer,
        "verdict": verdict,
        "critical": list(critical),
        "comment": comment,
    }


A, B, C = "anna", "ben", "carla"
CASES = [
    ("majority", [vote(A, "accept")], "accept", "accepted"),
    ("majority", [vote(A, "unsure")], "reject", "unsure"),
    ("majority", [vote(A, "accept"), vote(B, "accept"), vote(C, "reject", "dose")], "accept", "accepted"),
    ("majority", [vote(A, "accept"), vote(B, "reject"), vote(C, "reject")], "reject", "rejected"),
    ("majority", [vote(A, "accept"), vote(B, "reject")], "reject", "disputed"),
    ("majority", [vote(A, "accept"), vote(B, "reject", "dose")], "reject", "critical"),
    ("majority", [vote(A, "reject"), vote(B, "reject"), vote(C, "reject", "dose")], "reject", "rejected"),
    ("strictest", [vote(A, "accept"), vote(B, "accept"), vote(C, "reject", "dose")], "reject", "critical"),
    ("strictest", [vote(A, "accept"), vote(B, "reject")], "reject", "rejected"),
    ("strictest", [vote(A, "accept"), vote(B, "unsure")], "reject", "disputed"),
    ("strictest", [vote(A, "accept"), vote(B, "accept")], "accept", "accepted"),
    ("carla", [vote(A, "reject", "dose"), vote(B, "reject"), vote(C, "accept")], "accept", "accepted"),
    ("carla", [vote(A, "accept"), vote(B, "accept"), vote(C, "reject")], "reject", "rejected"),
    ("carla", [vote(A, "accept"), vote(B, "accept")], "accept", "accepted"),
    ("carla", [vote(A, "accept"), vote(B, "reject")], "reject", "disputed"),
]


@pytest.mark.parametrize(("adjudication", "votes", "verdict", "reason"), CASES)
def test_who_decides(adjudication: str, votes: list[dict], verdict: str, reason: str) -> None:
    found = ruling(votes, adjudication)
    assert (found.verdict, found.reason) == (verdict, reason)
    assert bool(found.critical) == (reason == "critical")


@given(
    st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=6),
    st.sampled_from(["majority", "strictest", "r0", "nobody_here"]),
    st.randoms(use_true_random=False),
)
def test_rulings_depend_on_no_order_and_doubt_is_not_kept(said, adjudication, random) -> None:
    votes = [vote(f"r{at}", verdict) for at, verdict in enumerate(said)]
    found = ruling(votes, adjudication)
    mixed = random.sample(votes, len(votes))
    assert ruling(mixed, adjudication) == found
    if found.verdict == "accept" and adjudication != "r0":
        assert 2 * said.count("accept") > len(said)
    assert ruling(votes, "strictest").verdict == ("accept" if set(said) == {"accept"} else "reject")


def test_a_row_without_a_verdict_rules_nothing() -> None:
    assert rulings([vote(A, "blank"), vote(B, "accept", record="s")], "majority").keys() == {"s"}


def looked(make, rows, rules, **context):
    table, plain = make(rows)
    given_ids = table["record_id"].to_pylist()
    known = {name: value(given_ids) if callable(value) else value for name, value in context.items()}
    outcome = engine.run(table, rules, "first", Context(plain.tasks, plain.seeds, plain.evaluation, **known))
    return outcome, [row["looks"][-1] for row in outcome.decisions.to_pylist()]


def test_people_s_verdicts_are_decisions(make, candidate) -> None:
    rows = [candidate(at, f"text {at}") for at in range(3)]
    votes = [vote(A, "accept", record="0"), vote(A, "reject", "dose", record="1", comment="ten times too much")]

    def reviews(ids):
        return rulings(
            [{**one, "candidate_record_id": ids[int(one["candidate_record_id"])]} for one in votes], "majority"
        )

    outcome, looks = looked(make, rows, [Block(name="human_review")], reviews=reviews)
    assert [look["reason"] for look in looks] == ["accepted", "critical", "unreviewed"]
    assert looks[1]["detail"] == "anna: reject [dose] (ten times too much)" and looks[1]["score"] == 0.0
    assert outcome.kept == [0, 2] and outcome.funnel == {"human_review.critical": 1}
    outcome, _ = looked(make, rows, [Block(name="human_review")], reviews=reviews, unreviewed="drop")
    assert outcome.kept == [0] and outcome.funnel == {"human_review.critical": 1, "human_review.unreviewed": 1}


RATINGS = {
    ("s0", "route", "other"): {"correctness": [5.0], "form": [4.0]},
    ("s1", "route", "other"): {"correctness": [2.0, 3.0], "form": [5.0]},
}


@pytest.mark.parametrize(
    ("params", "kept", "scores"),
    [
        ({"least": 4.0}, [0], [4.5, 3.75, None]),
        ({"least": 3.75}, [0, 1], [4.5, 3.75, None]),
        ({"least": 3.0, "by": "lowest"}, [0], [4.0, 2.5, None]),
        ({"least": 5.0, "criterion": "form"}, [1], [4.0, 5.0, None]),
        ({"least": 4.0, "unrated": "keep"}, [0, 2], [4.5, 3.75, None]),
        ({"least": 0.0, "criterion": "no_such"}, [], [None, None, None]),
    ],
)
def test_a_judges_score_is_held_against_a_bound(make, candidate, params, kept, scores) -> None:
    rows = [candidate(at, f"text {at}", seed_record_id=f"s{at}") for at in range(3)]
    outcome, looks = looked(make, rows, [Block(name="judge_score", **params)], ratings=RATINGS)
    assert outcome.kept == kept
    assert [look["score"] for look in looks] == scores
    assert {look["threshold"] for look in looks} == {params["least"]}


def test_a_rating_is_of_one_answer_to_one_seed(make, candidate) -> None:
    rows = [candidate(0, "text", "card_fee", seed_record_id="s0"), candidate(1, "text", seed_record_id="s9")]
    outcome, looks = looked(make, rows, [Block(name="judge_score", least=1.0)], ratings=RATINGS)
    assert outcome.kept == [] and [look["reason"] for look in looks] == ["unrated", "unrated"]
