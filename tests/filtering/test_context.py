"""Records with a context or choices: one question about many passages is many questions, and so is the reverse."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from distill_dagster.config.models import Block
from distill_dagster.filtering import engine
from distill_dagster.filtering._leakage import leaks
from distill_dagster.filtering.base import EvalText
from distill_dagster.records.messages import message
from distill_dagster.records.tables import build
from distill_dagster.stages.leakage import leaking_rows

QUESTION = "which of the two parties has to pay for the repair of the roof before the winter"
OTHER = "name the person who signed the letter that stands above"


def passage(number: int, words: int = 60) -> str:
    """A passage like no other."""
    rng = random.Random(number)
    return " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(words))


#: A question and what it is asked about: the first and the fourth are one record, the others stand for themselves.
ASKED = [
    (QUESTION, {"context": passage(0)}),
    (QUESTION, {"context": passage(1)}),
    (OTHER, {"context": passage(0)}),
    (QUESTION.upper(), {"context": passage(0) + "  "}),
    (QUESTION, {}),
    (QUESTION, {"choices": ["the tenant", "the landlord"]}),
    (QUESTION, {"choices": ["the town", "the church"]}),
]


def seeds(part: str) -> list[dict]:
    return [
        {"task": "route", "part": part, "messages": [message("user", text)], "licence": "CC0-1.0", **beside}
        for text, beside in ASKED
    ]


@pytest.mark.parametrize("name", ["exact_duplicate", "near_duplicate"])
def test_the_same_question_about_another_passage_is_no_duplicate(make, candidate, seed, name) -> None:
    rows = [candidate(number, text) for number, (text, _) in enumerate(ASKED)]
    given = [seed(number, text, **beside) for number, (text, beside) in enumerate(ASKED)]
    table, context = make(rows, given)
    found = engine.run(table, [Block(name=name)], "first", context)
    assert found.kept == [0, 1, 2, 4, 5, 6]
    assert found.duplicates.select(["dropped_no", "kept_no"]).to_pylist() == [{"dropped_no": 3, "kept_no": 0}]
    # An input that a teacher wrote is about the passage of its seed.
    written = replace(context, inputs={0: QUESTION, 1: QUESTION, 3: QUESTION})
    assert engine.run(table, [Block(name=name)], "first", written).kept == [0, 1, 2, 4, 5, 6]


def test_a_passage_that_differs_in_a_word_is_the_same(make, candidate, seed) -> None:
    rows = [candidate(number, QUESTION) for number in range(2)]
    given = [seed(number, QUESTION, context=passage(0) + end) for number, end in enumerate(("", " again"))]
    table, context = make(rows, given)
    assert engine.run(table, [Block(name="near_duplicate")], "first", context).kept == [0]
    assert engine.run(table, [Block(name="exact_duplicate")], "first", context).kept == [0, 1]


@pytest.mark.parametrize(
    ("text", "rest", "reasons"),
    [
        (QUESTION, passage(0), {0: "exact", 3: "exact"}),
        (QUESTION, passage(0).replace(" ", "  ") + " again", {0: "run", 3: "run"}),
        (QUESTION, passage(7), {}),
        (OTHER, passage(1), {}),
        (OTHER, passage(0) + " " + passage(8, 40), {2: "run"}),
        (QUESTION, "", {4: "exact"}),
        (QUESTION, "the landlord\nthe tenant", {5: "exact"}),
    ],
)
def test_decontamination(make, candidate, seed, text, rest, reasons) -> None:
    rows = [candidate(number, text) for number, (text, _) in enumerate(ASKED)]
    given = [seed(number, text, **beside) for number, (text, beside) in enumerate(ASKED)]
    table, context = make(rows, given)
    held = replace(context, evaluation=[EvalText("e0", "route", text, "shop/eval_set", rest)])
    decisions = engine.run(table, [Block(name="decontamination")], "first", held).decisions.to_pylist()
    found = {row["candidate_no"]: row["reason"] for row in decisions if row["verdict"] == "drop"}
    if not rest:  # an item without a passage is found in whatever holds its words
        assert sorted(found) == [0, 1, 3, 4, 5, 6]
        found = {number: reason for number, reason in found.items() if number == 4}
    assert found == {number: f"decontamination.{reason}" for number, reason in reasons.items()}


def test_a_passage_beside_a_short_item_hides_nothing(make, candidate, seed) -> None:
    short = "Who wrote Faust?"
    rows = [candidate(0, short.upper()), candidate(1, "Who wrote Egmont?")]
    given = [seed(0, short.upper(), context=passage(0)), seed(1, "Who wrote Egmont?", context=passage(0))]
    table, context = make(rows, given, [short])
    assert engine.run(table, [Block(name="decontamination")], "first", context).kept == [1]


@pytest.mark.parametrize("column", ["answer", "rationale"])
def test_an_item_that_an_answer_quotes_is_found(make, candidate, column) -> None:
    quoted = {column: f"Such as this one: {QUESTION.upper()}? There are many."}
    rows = [candidate(0, "a question", **quoted), candidate(1, "a question", "the roof before the winter")]
    table, context = make(rows, (), [QUESTION, "the roof"])
    decisions = engine.run(table, [Block(name="decontamination")], "first", context).decisions.to_pylist()
    assert [row["reason"] for row in decisions] == ["decontamination.said", None]
    assert decisions[0]["looks"][0]["detail"] == "e0 of shop/eval_set"


def test_a_written_input_that_gold_has_is_dropped(make, candidate, seed) -> None:
    rows = [candidate(0, "Where is my card?"), candidate(1, "where is  my card?"), candidate(2, "a fee")]
    given = [
        seed(0, "Where is my card?"),
        seed(1, "Where is my card?", part="gold"),
        seed(2, "a fee", part="gold", context=passage(0)),
        seed(3, "a fee", part="gold"),
    ]
    table, context = make(rows, given)
    written = replace(context, inputs={1: "WHERE is my card?", 2: "a fee"})
    found = engine.run(table, [Block(name="exact_duplicate")], "first", written)
    gold = context.seeds[1]["record_id"]
    assert found.funnel == {"exact_duplicate.gold": 2} and found.kept == [0]
    assert found.decisions.to_pylist()[1]["looks"][0]["detail"] == gold


def test_leaks_between_seeds_and_evaluation() -> None:
    held = [
        {**row, "part": "test", "context": row.get("context") and passage(number + 20)}
        for number, row in enumerate(seeds("gold")[:3])
    ]
    found = leaks(build("seed", seeds("gold")), build("seed", held))
    assert {kind: found[kind] for kind in ("record", "folded", "near", "subject")} == dict.fromkeys(
        ("record", "folded", "near", "subject"), 0
    )
    assert leaking_rows(build("seed", seeds("gold")), build("seed", held)) == {}
    same = build("seed", [{**seeds("gold")[0], "part": "test"}])
    assert leaks(build("seed", seeds("gold")), same)["record"] == 1
    assert leaking_rows(build("seed", seeds("gold")), same) == {0: "record", 3: "folded"}
