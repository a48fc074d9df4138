"""Chance, the linear baseline and the nearest seed."""

import subprocess
import sys

import pytest

from distill_dagster.evaluation.baselines import baseline, chance, linear, nearest


def test_chance():
    assert chance("label", ("a", "b", "c", "d"), ["a", "a", "A.", "b"]) == {
        "uniform": 0.25,
        "stratified": pytest.approx(0.625),
        "majority": 0.75,
    }
    assert chance("label", (), ["x", "y", "x", "x"])["uniform"] == 0.5
    assert set(chance("text", (), ["x", "x"]).values()) == {0.0}
    assert chance("label", ("a",), [])["majority"] == 0


TRAIN = ["the fee was charged twice", "a fee was added", "please refund the card", "refund my order", "card refund due"]
ANSWERS = ["fee", "fee", "refund", "refund", "refund"]


def test_linear_learns_words_and_is_deterministic():
    asked = ["another fee was charged", "where is the refund", ""]
    first = linear(TRAIN, ANSWERS, asked)
    assert first[:2] == ["fee", "refund"] and first[2] in ("fee", "refund")
    assert linear(TRAIN, ANSWERS, asked) == first == baseline("label", TRAIN, ANSWERS, asked)


def test_nearest_copies_the_most_similar_seed_and_the_first_among_equals():
    texts = ["pay 5 to Acme on 3 May", "pay 7 to Acme on 3 May", "pay 5 to Birch on 9 June"]
    answers = ["5 | 3 May", "7 | 3 May", "5 | 9 June"]
    assert nearest(texts, answers, ["Acme: pay 7 on 3 May", "pay 5, Birch"]) == ["7 | 3 May", "5 | 9 June"]
    assert nearest(texts, answers, ["zzz"]) == ["5 | 3 May"]
    assert baseline("verified", texts, answers, texts) == answers


def test_single_numbers_and_letters_count_as_words():
    texts, answers = ["clause A applies", "clause B applies"], ["first", "second"]
    assert nearest(texts, answers, ["applies: clause B", "applies: clause A"]) == ["second", "first"]


@pytest.mark.parametrize("make", [linear, nearest])
def test_edges(make):
    assert make(["x y", "x z"], ["only", "only"], ["q"]) == ["only"]
    assert make(["?", "!", "."], ["b", "a", "a"], ["q", "r"]) == ["a", "a"]
    assert make(TRAIN, ANSWERS, []) == []
    with pytest.raises(ValueError, match="at least one"):
        make([], [], ["q"])
    with pytest.raises(ValueError, match="5 texts for 1 answers"):
        make(TRAIN, ["fee"], ["q"])


def test_importing_evaluation_loads_nothing_heavy():
    code = (
        "import sys, distill_dagster.evaluation.report, distill_dagster.evaluation.baselines, "
        "distill_dagster.evaluation.examine_model\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'mlflow', 'dagster', 'sklearn', 'matplotlib', "
        "'scipy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
