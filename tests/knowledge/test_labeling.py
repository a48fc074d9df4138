"""Labeling: questions from seeds, candidates from answers."""

from __future__ import annotations

from typing import Literal

import pytest

from distill_dagster.config.models import Block, Sampling, TeacherConfig
from distill_dagster.domains.base import Task
from distill_dagster.errors import ConfigError
from distill_dagster.knowledge.base import Material, load_kind
from distill_dagster.knowledge.labeling import split_rationale, to_label
from distill_dagster.records.messages import as_chat, message
from distill_dagster.records.tables import build
from distill_dagster.teachers.base import Response

LABELS = ("card arrival", "card_fee", "other")
TASKS = {
    "route": Task("route", "label", "", "", labels=LABELS, max_new_tokens=12),
    "sum": Task("sum", "verified", "", "", max_new_tokens=7),
}


@pytest.fixture
def material():
    """`material(**teacher)`: three seeds of two tasks, both template styles."""

    def _material(style: Literal["full", "short"] = "full", **sampling):
        prompts = build(
            "prompt",
            [
                {"task": task, "style": kind, "system": system, "user": user, "version": "1", "labels": list(labels)}
                for task, labels in (("route", LABELS), ("sum", ()))
                for kind, system, user in (
                    ("full", "You are exact.", "Question: {{ input }}"),
                    ("short", "", task + ":\n{{ input }}"),
                )
            ],
        ).to_pylist()
        seeds = build(
            "seed",
            [
                {"seed_no": number, "task": task, "part": "unlabeled", "messages": [message("user", text)]}
                for number, task, text in ((3, "route", "where is it"), (5, "sum", "2 and 3"), (6, "route", "a fee"))
            ],
        ).to_pylist()
        teacher = TeacherConfig(kind="teacher", name="t", prompt_style=style, sampling=Sampling(**sampling))
        return Material(TASKS, seeds, {(row["task"], row["style"]): row for row in prompts}, teacher)

    return _material


def kind_of(name, **params):
    return load_kind(Block.model_validate({"name": name, **params}))


def ok(text, **more):
    return Response(text, more.pop("finish_reason", "stop"), "m", 1, 1, **more)


def test_one_question_a_seed_with_its_prompt_and_reference(material):
    given = material(stop=["\n"])
    questions = kind_of("labeling").requests(given)
    assert [question.refs for question in questions] == [(("seed", 3),), (("seed", 5),), (("seed", 6),)]
    first = questions[0]
    assert list(first.request.messages) == [
        {"role": "system", "content": "You are exact."},
        {"role": "user", "content": "Question: where is it"},
    ]
    assert first.prompt == given.prompts["route", "full"]["record_id"] and first.task == "route"
    assert first.request.sampling == {
        "max_new_tokens": 12, "temperature": 0.0, "top_p": 1.0, "stop": ["\n"], "seed": 0
    }  # fmt: skip
    assert questions[1].request.sampling["max_new_tokens"] == 7
    short = kind_of("labeling").requests(material("short", max_new_tokens=99))
    assert list(short[1].request.messages) == [{"role": "user", "content": "sum:\n2 and 3"}]
    assert short[1].request.sampling["max_new_tokens"] == 99


def test_candidates_show_the_student_its_own_template(material):
    given = material()
    kind = kind_of("labeling")
    questions = kind.requests(given)
    responses = [ok(" Card Arrival. "), ok(" 5 \n"), Response("", "error", "m", 0, 0, failure="timeout")]
    rows = build("candidate", kind.candidates(given, questions, responses, first_call=10)).to_pylist()
    assert [row["call_no"] for row in rows] == [10, 11, 12]
    assert [(row["seed_no"], row["seed_record_id"]) for row in rows] == [
        (seed["seed_no"], seed["record_id"]) for seed in given.seeds
    ]
    assert as_chat(rows[0]["messages"]) == [
        {"role": "user", "content": "route:\nwhere is it"},
        {"role": "assistant", "content": "card arrival"},
    ]
    assert [row["answer"] for row in rows] == ["card arrival", "5", None]
    assert [(row["status"], row["failure"]) for row in rows] == [("ok", None), ("ok", None), ("failed", "timeout")]
    assert [len(row["messages"]) for row in rows] == [2, 2, 1]
    assert {row["kind"] for row in rows} == {"labeling"} and {row["rationale"] for row in rows} == {None}


def test_samples(material):
    kind = kind_of("labeling", samples=3)
    with pytest.raises(ConfigError, match="Raise sampling.temperature of teacher 't'"):
        kind.requests(material())
    questions = kind.requests(material(temperature=0.7))
    assert [(question.refs[0][1], question.request.sample) for question in questions] == [
        (seed, sample) for seed in (3, 5, 6) for sample in range(3)
    ]
    rows = kind.candidates(material(temperature=0.7), questions, [ok(f"{at}") for at in range(9)])
    assert [row["sample"] for row in rows] == [0, 1, 2] * 3


def test_rationale(material):
    kind = kind_of("labeling", rationale=True, rationale_tokens=40)
    given = material("short")
    questions = kind.requests(given)
    chat = questions[0].request.messages
    assert chat[0]["content"] == "You are exact." and chat[1]["content"].startswith(
        "Question: where is it\n\nFirst explain"
    )
    assert questions[0].request.sampling["max_new_tokens"] == 52
    responses = [ok("They ask when.\nAnswer: **Card arrival**"), ok("2 + 3 = 5"), ok("A fee.\n\nANSWER:\ncard fee")]
    rows = kind.candidates(given, questions, responses)
    assert [row["answer"] for row in rows] == ["card arrival", None, "card_fee"]
    assert [row["rationale"] for row in rows] == ["They ask when.", "2 + 3 = 5", "A fee."]
    assert [(row["status"], row.get("failure")) for row in rows] == [("ok", None), ("failed", "unparsed"), ("ok", None)]
    assert [turn["role"] for turn in as_chat(rows[1]["messages"])] == ["user"], "no answer, nothing to train on"
    assert as_chat(rows[0]["messages"])[-1]["content"] == "card arrival"
    own = dict(given.prompts["route", "full"], user="{{ input }}{% if rationale %} Think, then Answer: x{% endif %}")
    prompts = {**given.prompts, ("route", "full"): own}
    asked = kind.requests(Material(given.tasks, given.seeds, prompts, given.teacher))
    assert asked[0].request.messages[-1]["content"] == "where is it Think, then Answer: x"
    worked = dict(own, style="rationale", user="Work out {{ input }}; last line Answer: x", record_id="w")
    prompts = {**given.prompts, ("route", "rationale"): worked}
    asked = kind.requests(Material(given.tasks, given.seeds, prompts, given.teacher))
    assert [question.request.messages[-1]["content"][:20] for question in asked[:2]] == [
        "Work out where is it",
        "Question: 2 and 3\n\nF",
    ]
    assert asked[0].prompt == "w" and asked[0].request.messages[-1]["content"].endswith("last line Answer: x")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\nAnswer: 5", ("a", "5")),
        ("Answer: 1\nno, wait\nThe final answer is: 2", ("Answer: 1\nno, wait", "2")),
        ("Answer: x", (None, "x")),
        ("the answer may be 5", ("the answer may be 5", None)),
        ("**Answer:** yes", (None, "yes")),
        ("因为。\nAnswer：是", ("因为。", "是")),
        ("", (None, None)),
        ("why\nAnswer:", ("why", "")),
        ('why\nAnswer: {\n  "a": [1]\n}\n', ("why", '{\n  "a": [1]\n}')),
        ("why\nAnswer: ```json\n[1]\n```", ("why", "```json\n[1]\n```")),
        ("why\nAnswer: {1}\nBye", ("why", "{1}")),
    ],
)
def test_split_rationale(text, wanted):
    assert split_rationale(text) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("CARD FEE", "card_fee"),
        (" card-arrival\n", "card arrival"),
        ('"Other".', "other"),
        ("otherwise", "otherwise"),
        ("card", "card"),
        ("...", "..."),
    ],
)
def test_to_label(answer, wanted):
    assert to_label(answer, LABELS) == wanted


def test_labels_that_only_differ_in_signs_stay_apart():
    assert to_label("C++", ("C", "C++")) == "C++"
    assert to_label("c", ("C", "C++")) == "C"


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("1.0", ("10", "1")),
        ("-1", ("1", "0")),
        ("\u22121", ("1", "0")),
        (".5", ("5", "0")),
        ("1:30", ("130", "13")),
        ("C", ("C++", "Java")),
        ("C", ("C#", "Java")),
        ("A-", ("A+", "B")),
        ("50", ("50%", "5")),
        ("5", (">5", "7")),
        (">5", ("<5", "7")),
        ("ही", ("हाँ", "नहीं")),  # vowel signs are no punctuation
        ("😡", ("😀", "5")),
    ],
)
def test_another_number_sign_or_vowel_is_another_label(answer, labels):
    assert to_label(answer, labels) == answer


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("1,000", "1000"),
        ("- Yes", "yes"),
        ("# yes", "yes"),
        ("<yes>", "yes"),
        ("\u2705 Yes!", "yes"),
        ("`yes`", "yes"),
        ("yes\u200b", "yes"),
        ("ｙｅｓ", "yes"),
        ("non compliant", "non-compliant"),
        ("😀.", "😀"),
        ("> 5", ">5"),
        ("e\u0301te\u0301", "\u00c9t\u00e9"),
        ("(-1)", "-1"),
        ("1 .", "1"),
    ],
)
def test_dressing_makes_no_other_label(answer, label):
    assert to_label(answer, ("no", label)) == label


def test_a_missing_template_names_task_and_style(material):
    given = material()
    kind = kind_of("labeling")
    with pytest.raises(ConfigError, match="task route: there is no 'full' template"):
        kind.requests(Material(given.tasks, given.seeds, {}, given.teacher))


def test_bad_blocks_are_named():
    with pytest.raises(ConfigError, match="Did you mean 'samples'"):
        kind_of("labeling", sample=2)
    with pytest.raises(ConfigError, match="Did you mean 'labeling'"):
        kind_of("labelling")
    with pytest.raises(ConfigError, match="class Kind"):
        kind_of("prompts")
