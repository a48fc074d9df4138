"""The four arms: their counts against the data's own flags, and verifiers that read no reference answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

#: Examples and right answers of each arm, as docs/results.md has them.
EXPECTED = {
    "svamp": {"unfiltered": (687, 516), "verified": (550, 460), "random": (550, 407), "gold": (718, 718)},
    "cqa": {"unfiltered": (3198, 2454), "verified": (3042, 2366), "random": (3042, 2333), "gold": (3264, 3264)},
}


@pytest.fixture
def four_arms(monkeypatch: pytest.MonkeyPatch):
    """The benchmark."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import four_arms

    return four_arms


@pytest.mark.real_data
@pytest.mark.parametrize("name", EXPECTED)
def test_shares_are_those_that_the_data_itself_says(
    four_arms, name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_REAL_DATA", str(real_data))
    lines = (real_data / "general" / f"{name}_palm_rationale.train.jsonl").read_text("utf-8").splitlines()
    right = {
        (" ".join(row["input"].split()), row["teacher"][0]["label"]): row["teacher"][0]["correct"]
        for row in map(json.loads, lines)
        if row["teacher"][0].get("label")
    }
    found = four_arms.answers(name, tmp_path)
    counted = {arm: (len(pairs), sum(right[pair] for pair in pairs)) for arm, pairs in found.items() if arm != "gold"}
    assert {**counted, "gold": (len(found["gold"]),) * 2} == EXPECTED[name]
    assert set(found["verified"]) < set(found["unfiltered"]) and set(found["random"]) < set(found["unfiltered"])
    measured = four_arms.arms(name, tmp_path)
    assert {arm: (entry["examples"], entry["right"]) for arm, entry in measured.items()} == EXPECTED[name]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("84 / 2", 42.0),
        ("( 7.0 * 30.0 )", 210.0),
        ("3 - -2", 5.0),
        ("1 / 0", None),
        ("2 ** 9", None),
        ("__import__", None),
    ],
)
def test_expressions_are_computed_and_nothing_else_is(four_arms, expression: str, found: float | None) -> None:
    assert four_arms.value(expression) == found


@pytest.mark.parametrize(
    ("answer", "rationale", "ok"),
    [
        ("84 / 2", "He scored 84 in 2 rounds. 84 / 2 = 42.", True),
        ("84 / 2", "84 - 2 = 82.", False),
        ("84 / 3", "84 / 3 = 28.", False),
        ("points", "It is 84.", False),
        ("84 / 2", "Divide them.", None),
    ],
)
def test_a_word_problem_is_checked_against_itself(four_arms, answer: str, rationale: str, ok: bool | None) -> None:
    assert four_arms.check_problem("84 points in 2 rounds", (), answer, rationale).ok is ok


@pytest.mark.parametrize(
    ("answer", "rationale", "ok"),
    [
        ("residential area", "Only residential areas have cats.", True),
        ("bed", "Only residential areas have cats.", False),
        ("bed", "A cat sleeps there.", None),
        ("house", "A house.", False),
    ],
)
def test_a_choice_is_checked_against_its_rationale(four_arms, answer: str, rationale: str, ok: bool | None) -> None:
    assert four_arms.check_choice("Where is a cat?", ["bed", "residential area"], answer, rationale).ok is ok
