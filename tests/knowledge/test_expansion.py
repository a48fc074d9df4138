"""Expansion: new inputs from seeds, failed ones with their class, and few prompts changed by a changed seed."""

from __future__ import annotations

import json

import pytest
from pipeline import rule_teacher
from rounds import drive, kind_of, material_of, seed_rows

from distill_dagster.errors import ConfigError
from distill_dagster.records.messages import as_chat, message
from distill_dagster.records.tables import build
from distill_dagster.teachers.base import Response, request_key

SEEDS = seed_rows([f"{rule_teacher.words('seed', at)} {('red', 'green')[at % 2]}" for at in range(12)])


def keys(driven) -> set[str]:
    teacher = rule_teacher.RuleTeacher()
    return {request_key(teacher, question.request, "n") for question in driven.questions}


def test_self_instruct_shows_neighbours_and_answers_what_it_wrote():
    material = material_of(SEEDS)
    driven = drive(kind_of("expansion", exemplars=3), material, rule_teacher.answer, first=40)
    writing, answering = driven.rounds
    assert len(writing) == 12 and len(answering) == 24
    by_no = {seed["seed_no"]: seed for seed in SEEDS}
    for at, call in enumerate(writing):
        kinds = [kind for kind, _ in call.question.refs]
        assert kinds == ["seed", "exemplar", "exemplar"] and call.question.refs[0][1] == at
        shown = [as_chat(by_no[ref]["messages"])[0]["content"] for _, ref in call.question.refs]
        assert rule_teacher.texts(call.question.request) == shown
    assert [call.call_no for call in driven.calls] == list(range(40, 76))
    assert [call.question.refs for call in answering[:3]] == [(("call", 40),), (("call", 40),), (("call", 41),)]
    rows = build("candidate", driven.harvest.candidates).to_pylist()
    assert {row["status"] for row in rows} == {"ok"} and len(rows) == 24
    for row in rows:
        assert row["answer"] == rule_teacher.colour(row["input"]) and row["call_no"] >= 52
        assert as_chat(row["messages"])[0]["content"] == row["input"]
        assert len(row["origins"]) == 3 and row["origins"][0] == row["seed_record_id"]
    assert len({row["input"] for row in rows}) == 24


def test_what_cannot_be_used_is_failed_with_its_class():
    seed = as_chat(SEEDS[0]["messages"])[0]["content"]
    replies = {
        "prose": "Here you are: one red, one green",
        "not_list": json.dumps({"inputs": "one"}),
        "extra": json.dumps({"inputs": ["a"], "note": "b"}),
        "nothing": json.dumps({"inputs": ["  "]}),
        "copied": json.dumps({"inputs": [seed.upper() + "!"]}),
        "twice": '{"inputs": ["a"], "inputs": ["b"]}',
        "deep": "[" * 100_000,
    }
    wanted = [
        "not_json",
        "not_per_schema",
        "not_per_schema",
        "empty",
        "copied",
        "not_json",
        "not_json",
        "truncated",
        "timeout",
    ]
    said = [Response(text, "stop", "m", 1, 1) for text in replies.values()]
    said += [Response(json.dumps({"inputs": ["a"]}), "length", "m", 1, 1), Response("", "error", "m", 0, 0, "timeout")]
    found = []
    for one in said:
        driven = drive(kind_of("expansion", exemplars=1), material_of(SEEDS[:1]), lambda _, one=one: one)
        assert len(driven.calls) == 1, "nothing was left to answer"
        (row,) = build("candidate", driven.harvest.candidates).to_pylist()
        assert row["status"] == "failed" and row["messages"] == [] and row["call_no"] == 0
        found.append(row["failure"])
    assert found == wanted


def test_another_sign_or_picture_is_another_input():
    texts = ["2 - 2", "2 * 2", "2 / 2", "2 x 2 👍", "2 x 2 👎", "2+2 !"]
    said = json.dumps({"inputs": texts})
    kind = kind_of("expansion", exemplars=1, inputs=6)
    driven = drive(kind, material_of(seed_rows(["2 + 2"])), lambda request: said)
    assert [row["input"] for row in driven.harvest.candidates if row["status"] == "ok"] == texts[:5]
    assert [row["failure"] for row in driven.harvest.candidates if row["status"] != "ok"] == ["copied"]


def test_evolution_goes_on_from_what_survived_and_keeps_every_generation():
    def rule(request):
        if rule_teacher.style(request) != "evolve":
            return rule_teacher.answer(request)
        (text,) = rule_teacher.texts(request)
        if "green" in text and "harder" not in text:
            return json.dumps({"input": text.title()})
        if "harder" in text and "red" in text:
            return json.dumps({"input": "#Rewritten Input#: red"})
        return json.dumps({"input": f"harder {text}"})

    driven = drive(kind_of("expansion", method="evolve", generations=2), material_of(SEEDS[:4]), rule)
    assert [len(one) for one in driven.rounds] == [4, 2, 2]
    rows = build("candidate", driven.harvest.candidates).to_pylist()
    assert sorted((row["status"], row["failure"]) for row in rows) == sorted(
        [("failed", "not_evolved")] * 2 + [("failed", "prompt_leaked")] * 2 + [("ok", None)] * 2, key=str
    )
    assert driven.rounds[1][0].question.refs == (("seed", 0), ("call", 0))
    assert [row["input"][:6] for row in rows if row["status"] == "ok"] == ["harder"] * 2
    kept = drive(kind_of("expansion", method="evolve", generations=3), material_of(SEEDS[:4]), rule_teacher.answer)
    assert [len(one) for one in kept.rounds] == [4, 4, 4, 12]


def test_operations_are_the_seeds_own_and_those_asked_for():
    driven = drive(kind_of("expansion", method="evolve"), material_of(SEEDS), rule_teacher.answer)
    told = {call.question.request.messages[0]["content"] for call in driven.rounds[0]}
    assert 2 < len(told) <= 5
    driven = drive(
        kind_of("expansion", method="evolve", operations=["broaden"]), material_of(SEEDS), rule_teacher.answer
    )
    assert {"rarer matter" in call.question.request.messages[0]["content"] for call in driven.rounds[0]} == {True}


def test_only_the_parts_that_were_named_are_read():
    gold = seed_rows(["a golden red text"], "gold", first=100)
    kind = kind_of("expansion", exemplars=16)
    assert kind.parts() == {"unlabeled"}
    driven = drive(kind, material_of(SEEDS, gold), rule_teacher.answer)
    assert "golden" not in str([question.request.messages for question in driven.questions])
    kind = kind_of("expansion", seeds=["gold"])
    assert kind.parts() == {"gold"}
    driven = drive(kind, material_of(SEEDS, gold), rule_teacher.answer)
    assert [question.refs for question in driven.questions][0] == (("seed", 100),)
    for part in ("validation", "test", "teacher"):
        with pytest.raises(ConfigError, match="unlabeled"):
            kind_of("expansion", seeds=[part])


@pytest.mark.parametrize(
    ("name", "params", "most"),
    [
        ("labeling", {}, 1),
        ("self_knowledge", {"samples": 3, "of": "teacher"}, 3),
        ("feedback", {}, 4),
        # Itself, and at most the `exemplars - 1` seeds before its old and its new place on the ring; each of these
        # prompts is followed by two answers.
        ("expansion", {"exemplars": 1}, 3),
        ("expansion", {"exemplars": 3}, 3 * (1 + 2 * 2)),
        ("expansion", {"exemplars": 5}, 3 * (1 + 2 * 4)),
        ("expansion", {"method": "evolve"}, 2),
        ("curation", {}, 0),
    ],
)
def test_a_changed_seed_changes_few_prompts(name, params, most):
    """1 % of the seeds: labeling asks 1 % again; who sees a changed seed as an exemplar asks again as well."""
    texts = [f"{rule_teacher.words('many', at)} red" for at in range(100)]
    changed = [text + " truly" if at == 17 else text for at, text in enumerate(texts)]
    kind = kind_of(name, **params)
    before = keys(drive(kind, material_of(seed_rows(texts)), rule_teacher.answer))
    after = keys(drive(kind, material_of(seed_rows(changed)), rule_teacher.answer))
    assert (len(after - before) > 0) == (most > 0) and len(after - before) <= most
    moved = drive(kind, material_of(seed_rows(texts[::-1])), rule_teacher.answer)
    assert keys(moved) == before, "the order of the seeds does not matter"


def test_a_share_is_of_the_seeds_own_choosing():
    texts = [f"{rule_teacher.words('some', at)} red" for at in range(400)]
    kind = kind_of("expansion", share=0.25, exemplars=1)
    some = {call.question.refs for call in drive(kind, material_of(seed_rows(texts)), rule_teacher.answer).rounds[0]}
    assert 70 <= len(some) <= 130
    fewer = {
        call.question.refs for call in drive(kind, material_of(seed_rows(texts[:200])), rule_teacher.answer).rounds[0]
    }
    assert fewer == {refs for refs in some if refs[0][1] < 200}


def test_samples_need_a_temperature():
    with pytest.raises(ConfigError, match="temperature"):
        drive(kind_of("expansion", samples=2), material_of(SEEDS), rule_teacher.answer)
    driven = drive(
        kind_of("expansion", samples=2, temperature=0.9), material_of(SEEDS, stop=["\n"]), rule_teacher.answer
    )
    asked = driven.rounds[0][1].question.request
    assert (asked.sample, asked.sampling["temperature"], asked.sampling["stop"]) == (1, 0.9, [])
    assert driven.rounds[1][0].question.request.sampling["stop"] == ["\n"]


def test_a_conversation_is_expanded_as_a_whole_and_its_context_is_kept():
    turns = [message("user", "a red parcel"), message("assistant", "so?"), message("user", "which colour")]
    (seed,) = seed_rows([turns])
    seed["context"] = "About parcels."
    driven = drive(kind_of("expansion", exemplars=1), material_of([seed]), rule_teacher.answer)
    context, shown = rule_teacher.texts(driven.questions[0].request)
    assert shown == "User: a red parcel\n\nAssistant: so?\n\nUser: which colour" and context == "About parcels."
    assert ("seed", 0) in driven.rounds[1][0].question.refs, "the context is the seed's"
    assert "About parcels." in driven.rounds[1][0].question.request.messages[-1]["content"]
