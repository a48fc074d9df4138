"""What a file says about kinds of knowledge: parameters, and what they need elsewhere in it."""

from collections.abc import Callable

import pytest

from distill_dagster.config import pipeline_checks, registry
from distill_dagster.config.problems import Problem

Found = Callable[..., list[Problem]]
PIPELINE = "kind: pipeline\nsource: toy\nteacher: small\n"


@pytest.fixture(autouse=True)
def known_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_checks, "blocks", registry.blocks)


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("knowledge:\n- self_knowledge\nfiltering: [schema]\n", 5, "knowledge[0]", ["`verifier`"]),
        ("knowledge:\n- name: curation\n  topics: {color: [red]}\n", 6, "knowledge[0].topics.color", ["'colour'"]),
        ("knowledge:\n- name: expansion\n  seeds: [test]\n", 6, "knowledge[0].seeds[0]", ["unlabeled, gold"]),
        ("knowledge:\n- name: feedback\n  method: compete\n", 6, "knowledge[0].method", ["'compare'"]),
        ("filtering:\n- name: schema\n  forms: {color: json}\n", 6, "filtering[0].forms.color", ["'colour'"]),
        ("filtering:\n- name: verifier\n  tasks: [color]\n", 6, "filtering[0].tasks[0]", ["'colour'"]),
        (
            "filtering: [{name: judge_score, least: 3, criterion: far}]\nknowledge: [{name: feedback, method: rate}]\n",
            4,
            "filtering[0].criterion",
            ["no answer would have a score"],
        ),
        ("knowledge:\n- name: feedback\n  sample: 3\n", 6, "knowledge[0].sample", ["'samples'"]),
    ],
)
def test_each_fault_names_place_and_remedy(found: Found, text: str, line: int, key: str, words: list[str]) -> None:
    problems = [problem for problem in found(pipeline=PIPELINE + text) if problem.key == key]
    assert len(problems) == 1, found(pipeline=PIPELINE + text)
    assert problems[0].line == line
    for word in words:
        assert word in f"{problems[0].reason} {problems[0].hint}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{task: colour, style: compare, user: '{{ first }} {{ second }} {{ mark }}'}", None),
        ("{task: colour, style: rate, system: '{{ criteria }}'}", None),
        ("{task: colour, style: compare, user: '{{ third }}'}", "'third'"),
        ("{task: colour, style: compare, system: '{{ first }}'}", "user role only"),
        ("{task: colour, style: critiqe}", "'critique'"),
    ],
)
def test_templates_of_other_styles_are_checked(found: Found, text: str, fault: str | None) -> None:
    problems = found(source=f"kind: source\ndomain: toy\nprompts:\n- {text}\n")
    assert len(problems) == (fault is not None)
    assert all(str(fault) in f"{problem.reason} {problem.hint}" for problem in problems)


def test_every_kind_may_stand_in_one_pipeline(found: Found) -> None:
    kinds = registry.blocks(*pipeline_checks.KNOWLEDGE)
    assert set(kinds) == {"labeling", "expansion", "curation", "feature", "feedback", "self_knowledge"}
    # `feature` needs a teacher behind an API: tests/pipeline/test_feature.py.
    kinds = [kind for kind in kinds if kind != "feature"]
    assert found(pipeline=f"{PIPELINE}knowledge: [{', '.join(kinds)}]\n") == []
