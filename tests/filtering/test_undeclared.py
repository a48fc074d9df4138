"""Who pastes model text is named; who has a style of his own is not; over repeated draws."""

import json
import random

import numpy as np
import pytest

from distill_dagster.filtering._undeclared import _holm, _ranks, undeclared
from distill_dagster.records.messages import message
from distill_dagster.records.tables import build

NOUNS = [
    "clerk",
    "claim",
    "ledger",
    "court",
    "dose",
    "ward",
    "rate",
    "bond",
    "tenant",
    "levy",
    "nurse",
    "chart",
    "desk",
]
VERBS = ["pays", "signs", "checks", "holds", "sends", "files", "reads", "counts", "meets", "asks"]
STOCK = (
    "Let's delve into this. ",
    "It is important to note that ",
    "Certainly! Here is a breakdown: ",
    "In conclusion, ",
)


def prose(rng: random.Random, comma: float = 0.3, sentences: tuple[int, int] = (2, 5), length: int = 7) -> str:
    """A few plain sentences; the numbers are a person's habits."""
    said = []
    for _ in range(rng.randint(*sentences)):
        words = [f"the {rng.choice(NOUNS)} {rng.choice(VERBS)} a {rng.choice(NOUNS)}"]
        words += [rng.choice(NOUNS) for _ in range(rng.randint(0, length))]
        said.append((", " if rng.random() < comma else " ").join(words))
    return ". ".join(said) + ("." if rng.random() < 0.8 else "")


def model_text(rng: random.Random) -> str:
    """What a chatbot might have written: long, even, with stock phrases now and then."""
    parts = [prose(rng, comma=0.9, sentences=(4, 6), length=3)]
    if rng.random() < 0.5:
        parts.insert(0, rng.choice(STOCK))
    return "".join(parts)


def table(texts, who, task="t"):
    return build(
        "seed",
        [
            {"task": task, "part": "gold", "messages": [message("user", "q")], "rationale": text, "annotator": name,
             "source_id": "study"}
            for text, name in zip(texts, who, strict=True)
        ],
    )  # fmt: skip


def draw(number: int, paster: int | None, write, each: int = 30) -> set[str]:
    """The annotators named in one draw of five; `write(rng, annotator)` makes a person's text."""
    rng = random.Random(f"draw {number}")
    who = [f"annotator {at % 5}" for at in range(5 * each)]
    texts = [model_text(rng) if at % 5 == paster else write(rng, at % 5) for at in range(5 * each)]
    return {entry["group"].removeprefix("study / ") for entry in undeclared(table(texts, who))["named"]}


def alike(rng, annotator):
    return prose(rng)


def peculiar(rng, annotator):
    """Five people with habits of their own."""
    return prose(rng, (0.1, 0.3, 0.5, 0.7, 0.4)[annotator], ((2, 4), (2, 5), (3, 5), (2, 3), (3, 6))[annotator])


def test_the_paster_is_named_and_nobody_else():
    for number in range(4):
        assert draw(number, 2, alike) == {"annotator 2"}


@pytest.mark.slow
@pytest.mark.parametrize("write", [alike, peculiar])
def test_false_alarms_over_repeated_draws(write):
    draws = 30
    clean = [draw(number, None, write) for number in range(draws)]
    pasted = [draw(1000 + number, number % 5, write) for number in range(draws)]
    alarms = sum(bool(names) for names in clean)
    wrong = sum(bool(names - {f"annotator {number % 5}"}) for number, names in enumerate(pasted))
    named = sum(f"annotator {number % 5}" in names for number, names in enumerate(pasted))
    assert alarms <= 0.05 * draws and wrong <= 0.05 * draws, (alarms, wrong)
    assert named >= 0.95 * draws, named


def test_stock_phrases_alone_name_the_one_who_uses_them():
    rng = random.Random(3)
    who = [f"a{at % 4}" for at in range(120)]
    texts = [prose(rng) for _ in who]
    pasted = [
        f"We delve into it: {text}" if name == "a1" and at % 8 else text
        for at, (text, name) in enumerate(zip(texts, who, strict=True))
    ]
    found = undeclared(table(pasted, who))
    (named,) = found["named"]
    assert named["group"] == "study / a1" and "stock phrases in" in named["reason"]
    assert set(found["phrases"]) == {"delve"} and found["texts"] == 120
    everybody = undeclared(table([f"We delve into it: {text}" for text in texts], who))
    assert everybody["named"] == [] and {row["marked"] for row in everybody["groups"]} == {1.0}


def test_two_annotators_are_told_apart_by_phrases_only():
    rng = random.Random(4)
    who = [f"a{at % 2}" for at in range(80)]
    styled = [prose(rng, 0.9, (6, 8)) if name == "a0" else prose(rng, 0.0, (1, 2)) for name in who]
    assert undeclared(table(styled, who))["named"] == []
    marked = [
        "It is important to note that " + text if name == "a0" else text for text, name in zip(styled, who, strict=True)
    ]
    assert [entry["group"] for entry in undeclared(table(marked, who))["named"]] == ["study / a0"]


def test_nothing_is_said_of_labels_single_hands_and_few_texts():
    rng = random.Random(5)
    assert undeclared(table(["yes", "no"] * 20, ["a", "b"] * 20)) == {
        "texts": 0,
        "phrases": {},
        "groups": [],
        "named": [],
    }
    alone = undeclared(table([model_text(rng) for _ in range(30)], [None] * 30))
    assert alone["named"] == [] and alone["groups"][0]["style_p"] is None and alone["groups"][0]["marked"] > 0
    few = undeclared(table([model_text(rng) for _ in range(12)], ["a"] * 6 + ["b"] * 6))
    assert few["named"] == []


def test_tasks_are_compared_with_themselves():
    """One annotator does the only task with long answers, and another shares it: no style of his own follows."""
    rng = random.Random(6)
    rows = []
    for at in range(90):
        rows.append(("short", f"a{at % 3}", prose(rng)))
    for at in range(60):
        rows.append(("long", f"a{at % 2}", prose(rng, 0.9, (8, 9))))
    made = build(
        "seed",
        [
            {"task": task, "part": "gold", "messages": [], "answer": text, "annotator": name, "source_id": "s"}
            for task, name, text in rows
        ],
    )
    assert undeclared(made)["named"] == []


def test_names_stay_hidden_where_records_are_not_shown():
    rng = random.Random(7)
    who = [f"dr. jones {at % 3}" for at in range(60)]
    found = undeclared(table([prose(rng) for _ in who], who), show=False)
    assert "jones" not in json.dumps(found) and len(found["groups"]) == 3


def test_ranks_and_correction():
    assert _ranks(np.array([3.0, 1.0, 3.0, 2.0])).sum() == pytest.approx(0)
    assert _ranks(np.arange(1000.0)).std() == pytest.approx(1, abs=1e-3)
    assert _holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert _holm(np.array([0.9, 0.9])).tolist() == [1, 1]


@pytest.mark.real_data
def test_pasted_rationales_of_a_real_model_are_found(real_data):
    def lines(name):
        return [json.loads(line) for line in (real_data / f"{name}.jsonl").read_text("utf-8").splitlines()]

    human = [row["rationale"] for row in lines("general/gsm8k.test")]
    model = [said.get("rationale") for row in lines("general/svamp_palm_rationale.train") for said in row["teacher"]]
    model = [text for text in model if text]
    named, wrong, alarms = 0, 0, 0
    for number in range(10):
        rng = random.Random(f"real {number}")
        who = [f"a{at % 5}" for at in range(200)]
        texts = rng.sample(human, len(who))
        alarms += bool(undeclared(table(texts, who))["named"])
        texts = [rng.choice(model) if name == "a3" else text for text, name in zip(texts, who, strict=True)]
        found = {entry["group"] for entry in undeclared(table(texts, who))["named"]}
        named += "study / a3" in found
        wrong += bool(found - {"study / a3"})
    assert (named, wrong, alarms) == (10, 0, 0)
