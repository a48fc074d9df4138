"""What a recipe that learns from the student's own samples may say."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from distill_dagster.config import pipeline_checks, registry
from distill_dagster.config.problems import Problem
from distill_dagster.domains.base import Verdict
from distill_dagster.domains.registry import Domains

Found = Callable[..., list[Problem]]
PIPELINE = "kind: pipeline\nsource: toy\nteacher: small\n"


@pytest.fixture(autouse=True)
def known_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_checks, "blocks", registry.blocks)


@pytest.fixture
def domains(domains: Domains) -> Domains:
    """The toy domain can judge; the generic one cannot."""
    judge = replace(domains.found["toy"], verify=lambda task, facts, output: Verdict(None))
    return replace(domains, found={**domains.found, "toy": judge})


def training(objective: str, more: str = "") -> str:
    return f"{PIPELINE}training:\n  objective:\n    {objective}\n{more}"


def test_sound_recipes(found: Found) -> None:
    for objective in (
        "grpo: 1.0",
        "grpo: {group: 4, every: 2, buffer: 64, max_age: 8, kl: 0.04, std: false, mean: sequences, clip_high: 0.28}",
        "gkd: {on_policy: 1.0, kind: jsd, data_kind: forward}",
        "gkd: {on_policy: 0}",
    ):
        assert found(pipeline=training(objective)) == []


@pytest.mark.parametrize(
    ("objective", "key", "words"),
    [
        ("gkd: {on_policy: 1.5}", "gkd.on_policy", ["1.5", "1"]),
        ("gkd: {on_policy: -0.1}", "gkd.on_policy", ["-0.1", "0"]),
        ("gkd: {lambda: 0.5}", "gkd.lambda", ["lambda"]),
        ("grpo: {group: 1}", "grpo.group", ["2"]),
        ("grpo: {clip_low: 1.2}", "grpo.clip_low", ["1"]),
        ("grpo: {samples: 4}", "grpo.samples", ["samples"]),
    ],
)
def test_each_fault_names_place_and_value(found: Found, objective: str, key: str, words: list[str]) -> None:
    (problem,) = found(pipeline=training(objective))
    assert problem.key == f"training.objective.{key}" and problem.line == 6
    for word in words:
        assert word in f"{problem.reason} {problem.hint}"


def test_a_prompt_carries_no_loss(found: Found) -> None:
    (problem,) = found(pipeline=training("gkd: 1.0", "  prompt_loss_weight: 0.1\n"))
    assert problem.key == "training.objective.gkd" and "prompt_loss_weight" in problem.reason


@pytest.mark.parametrize(
    ("objective", "more", "key", "words"),
    [
        ("dpo: 1.0", "gold_repeat: 3", "gold_repeat", ["'dpo'", "no gold example"]),
        ("simpo: 1.0", "early_stop: {}", "early_stop", ["'simpo'", "single answers"]),
        ("dpo: 1.0", "rationale: {mode: in_answer}", "rationale.mode", ["pairs hold answers", "'dpo'"]),
        ("grpo: 1.0", "rationale: {mode: in_answer}", "rationale.mode", ["verdicts are on answers", "'grpo'"]),
    ],
)
def test_what_nothing_would_come_of_is_refused(
    found: Found, objective: str, more: str, key: str, words: list[str]
) -> None:
    text = training(objective, f"  {more}\nknowledge: [labeling, {{name: feedback, method: compare}}]\n")
    (problem,) = found(pipeline=text)
    assert problem.key == f"training.{key}" and problem.line == 7 and problem.hint
    for word in words:
        assert word in problem.reason


def test_a_task_without_a_verifier_is_named_with_its_domain(found: Found, domains: Domains) -> None:
    data = "columns: {input: text, answer: size}, licence: CC0-1.0, task: own"
    source = "kind: source\ndomain: DOMAIN\nname: toy\ndefine: [{name: own, kind: text}]\n"
    source += f"seeds: [{{path: a.jsonl, {data}}}]\nevaluation: [{{path: b.jsonl, {data}}}]\n"
    for domain in ("toy", "generic"):
        problems = found(pipeline=training("grpo: 1.0"), source=source.replace("DOMAIN", domain))
        (problem,) = [one for one in problems if one.key.startswith("training")]
        assert problem.key == "training.objective.grpo"
        assert f"task 'own' of domain '{domain}' has no verifier" in problem.reason
        # A teacher's opinion needs none.
        assert not [
            one
            for one in found(pipeline=training("gkd: 1.0"), source=source.replace("DOMAIN", domain))
            if one.key.startswith("training")
        ]
    mute = replace(domains.found["toy"], verify=None)
    domains.found["toy"] = mute  # pyright: ignore[reportIndexIssue]
    problems = found(pipeline=training("grpo: 1.0"))
    assert ["'colour'" in one.reason or "'size'" in one.reason for one in problems] == [True, True]
    (one,) = found(pipeline=training("grpo: 1.0") + "tasks: [size]\n")
    assert "'size'" in one.reason


def test_a_teacher_is_not_sampled(found: Found) -> None:
    fit = "kind: teacher\nname: small\nmodel: preset:nano\nfit:\n  recipe:\n    objective: {OBJECTIVE: 1.0}\n"
    (problem,) = found(teacher=fit.replace("OBJECTIVE", "grpo"))
    assert problem.key == "fit.recipe.objective.grpo" and "this is a teacher" in problem.reason
    assert found(teacher=fit.replace("OBJECTIVE", "sft")) == []
