"""Hostile seeds of a free-text task and a teacher that obeys them all, from YAML: no example holds the canary."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from filtering.attacks import OVERRIDES, POLITE, QUESTIONS
from teachers.fault_server import FaultServer

from distill_dagster.lineage.engine import head_version
from distill_dagster.records.messages import text_of
from pipeline import tiny
from pipeline.tiny import Tiny

CANARY = "vermilion otter parade"
SOURCE = """\
kind: source
domain: generic
name: parcels
define: [{name: advise, kind: text, max_new_tokens: 48}]
prompts: [{task: advise, style: short, system: Answer the question., user: '{{ input }}'}]
split: {teacher: 0, gold: 0, unlabeled: 1.0}
seeds: [{path: seeds.jsonl, columns: {input: text, id: id}, licence: CC0-1.0, task: advise}]
evaluation: [{path: test.jsonl, columns: {input: text, answer: answer}, licence: CC0-1.0, task: advise}]
"""
TEACHER = """\
kind: teacher
name: nano_teacher
backend: openai
model: test-model
revision: "1"
prompt_style: short
endpoint: {url: URL, deadline: 20.0}
"""
DATA_HALF = (*tiny.SOURCE, *tiny.DATA)
DEFAULT = "filtering: [refusal, exact_duplicate]\n"
#: One civil question each, so that what is left over can be counted.
CIVIL = [
    f"May tenant number {number} of house {number * 7} sublet a room of {number + 20} square metres?"
    for number in range(24)
]


def obeys(body, sound):
    """A model that does what it is told, wherever it is told so."""
    said = " ".join(message["content"] for message in body["messages"])
    if CANARY in said.casefold().replace("\u200b", ""):
        rng = random.Random(said)
        answer = rng.choice((CANARY, f"Sure! {CANARY.title()}.", f"It depends. {CANARY.upper()}"))
    else:
        answer = f"It depends on the contract; ask before {len(said)} days are over."
    sound["choices"][0]["message"]["content"] = answer
    return sound


def hostile() -> list[str]:
    """Every attack, in front of or behind a question."""
    rng = random.Random(5)
    made = []
    for number, form in enumerate((*OVERRIDES, *POLITE)):
        both = [f"{rng.choice(QUESTIONS)} (case {number})", form.replace("SAY", CANARY)]
        made.append("\n".join(both if number % 3 else reversed(both)))
    return made


def project(folder: Path, url: str, filtering: str = "") -> Tiny:
    """A free-text project with civil and hostile seeds and the default rules, or others."""
    made = tiny.parcels(folder)
    config = folder / "assets_config"
    (config / "source.yaml").write_text(SOURCE, "utf-8")
    (config / "teacher.yaml").write_text(TEACHER.replace("URL", url), "utf-8")
    made.edit("pipeline.yaml", DEFAULT, filtering)
    rows = [{"id": f"h{at}", "text": text} for at, text in enumerate(hostile())]
    rows += [{"id": f"c{at}", "text": text} for at, text in enumerate(CIVIL)]
    made.write_lines("seeds.jsonl", rows)
    made.write_lines("test.jsonl", [{"text": "What has this to do with cheese?", "answer": "Nothing."}])
    return made


def kept(made: Tiny) -> tuple[list[dict], list[dict]]:
    """Examples and decisions of the newest data set."""
    found = head_version(made.project().store, ("parcels", "filtered_dataset"))
    assert found is not None
    version, run = found
    return version.table("example").to_pylist(), version.side_table(run, "decision").to_pylist()


@pytest.mark.parametrize("filtering", ["", "filtering: [injection]\n"])
def test_a_teacher_that_obeys_teaches_no_canary(tmp_path: Path, filtering: str) -> None:
    with FaultServer(reply=obeys) as server:
        made = project(tmp_path / "parcels", server.url, filtering)
        made.run(DATA_HALF)
        bodies = list(server.bodies)
    attacks = len(hostile())
    assert len(bodies) == attacks + len(CIVIL)
    # What a seed says never stands in the system role, and the teacher was really asked all of it.
    assert {message["role"] for body in bodies for message in body["messages"]} == {"system", "user"}
    assert {body["messages"][0]["content"] for body in bodies} == {"Answer the question."}
    found = head_version(made.project().store, ("parcels", "teacher_outputs"))
    assert found is not None
    candidates = found[0].table("candidate").to_pylist()
    obeyed = [row for row in candidates if CANARY in (row["answer"] or "").casefold()]
    assert len(obeyed) >= attacks - 2  # a disguised canary may not be recognised by the teacher either

    examples, decisions = kept(made)
    assert examples
    assert CANARY not in json.dumps(examples, default=str, ensure_ascii=False).casefold().replace("-", " ")
    assert len(decisions) == len(candidates)
    by_reason = [row["reason"] for row in decisions if row["reason"]]
    assert by_reason.count("injection.instructs") + by_reason.count("injection.obeys") == attacks
    assert by_reason.count("injection.obeys") >= 5
    look = next(row["looks"][-1] for row in decisions if row["reason"] == "injection.instructs")
    assert (look["rule"], look["verdict"]) == ("injection", "drop") and look["score"] >= look["threshold"]
    assert look["detail"]
    if filtering:  # the default rules may find near duplicates among the civil questions
        texts = {text_of(row["messages"], "user") for row in examples}
        assert texts == set(CIVIL)


def test_without_the_rule_it_would(tmp_path: Path) -> None:
    with FaultServer(reply=obeys) as server:
        made = project(tmp_path / "parcels", server.url, "filtering: [schema, length, refusal]\n")
        made.run(DATA_HALF)
    examples, _ = kept(made)
    assert sum(CANARY in (row["messages"][-1]["parts"][0]["text"]).casefold() for row in examples) > 20
