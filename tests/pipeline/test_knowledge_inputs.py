"""What kinds are given and give: conversations, passages, samples for a verifier; and the files of the example."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill_dagster.domains.base import Passage
from distill_dagster.domains.generic import domain as generic
from distill_dagster.records.messages import text_of
from distill_dagster.stages import teaching
from distill_dagster.teachers.base import Request
from pipeline import rule_teacher, tiny
from pipeline.kinds import DATA, MODEL, table, teacher, written
from pipeline.rule_teacher import RuleTeacher
from pipeline.tiny import Tiny

__all__ = ["teacher"]  # a fixture

pytestmark = pytest.mark.needs_torch


def test_conversations_and_worked_answers(tmp_path: Path, teacher: RuleTeacher) -> None:
    """Seeds of several turns, from a file to examples that keep every turn; the reasoning has a column of its own."""
    project = written(tmp_path / "turns", "knowledge: [{name: labeling, rationale: true}]\n")
    for file in ("seeds.jsonl", "test.jsonl"):
        lines = [
            dict(line, text=[
                {"role": "user", "content": f"Parcel {line['depot']}."},
                {"role": "assistant", "content": "What of it?"},
                {"role": "user", "content": line["text"]},
            ])
            for line in project.lines(file)
        ]  # fmt: skip
        project.write_lines(file, lines)

    def worked(request: Request) -> str:
        said = rule_teacher.colour(request.messages[-1]["content"])
        return f"The text says {said}.\nAnswer: {said.upper()}" if len(said) == 3 else f"It is {said}"

    teacher.rule = worked
    made = project.run(DATA)
    assert {len(request.messages) for request in teacher.asked} == {4}, "the task's system turn, and three of the seed"
    candidates = table(made["teacher_outputs"], "candidate")
    status = Counter((row["status"], row["failure"], row["answer"]) for row in candidates)
    assert set(status) == {("ok", None, "red"), ("failed", "unparsed", None)}
    taught = [row for row in table(made["filtered_dataset"], "example") if row["origin"] == "teacher"]
    assert len(taught) == status["ok", None, "red"]
    for row in taught:
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant", "user", "assistant"]
        assert text_of(row["messages"][-1:]) == "red" and row["rationale"] == "The text says red."
    gold = [row for row in table(made["filtered_dataset"], "example") if row["origin"] == "gold"]
    assert gold and all(len(row["messages"]) == 4 for row in gold)


def test_passages_of_the_domain_are_recorded(
    tmp_path: Path, teacher: RuleTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the domain's function to the licence of the example; another version of the texts asks again."""
    project = written(tmp_path / "grounded", "knowledge: [{name: labeling, passages: 2}]\n")
    plain = generic.domain()

    def library(task: str, text: str, count: int) -> list[Passage]:
        return [Passage(f"All about {rule_teacher.colour(text)}.", "manual:1", "CC-BY-4.0")]

    monkeypatch.setattr(generic, "domain", lambda: replace(plain, passages=library))
    made = project.run(DATA)
    passages = {row["passage_no"]: row["text"] for row in table(made["teacher_outputs"], "passage")}
    assert set(passages.values()) == {"All about red.", "All about green."}
    shown = [row for row in table(made["teacher_outputs"], "call_input") if row["kind"] == "passage"]
    assert len(shown) == len(teacher.asked) and {row["ref_no"] for row in shown} == set(passages)
    assert all("All about" in request.messages[-1]["content"] for request in teacher.asked)
    taught = [row for row in table(made["filtered_dataset"], "example") if row["origin"] == "teacher"]
    assert taught and {row["licence"] for row in taught} == {"CC-BY-4.0 AND CC0-1.0"}
    assert "All about" not in str(taught)
    monkeypatch.setattr(generic, "domain", lambda: replace(plain, passages=library, passages_version="2"))
    assert not project.run(DATA)["teacher_outputs"].reused


def test_of_several_samples_the_verifier_keeps_the_right_ones(tmp_path: Path, teacher: RuleTeacher) -> None:
    """Rejection sampling: every wrong sample is dropped for being wrong, and has its decision."""
    project = tiny.finance(tmp_path / "right")
    project.edit(
        "pipeline.yaml",
        "filtering: [refusal, exact_duplicate]",
        "filtering: [schema, {name: verifier, undecided: drop}]",
    )
    project.append("pipeline.yaml", "tasks: [covenant]\nknowledge: [{name: self_knowledge, of: teacher, samples: 3}]\n")
    short = f"kind: teacher\nname: nano_teacher\nmodel: {MODEL}\nprompt_style: short\n"
    (project.folder / "assets_config" / "teacher.yaml").write_text(short, "utf-8")
    gold = {text_of(row["messages"]): row["answer"] for row in table(project.run(["seed_set"])["seed_set"], "seed")}

    def guess(request: Request) -> str:
        text = request.messages[-1]["content"]
        right = next(answer for asked, answer in gold.items() if asked in text)
        return right if request.sample == 1 else f"{right}1"

    teacher.rule = guess
    made = project.run(DATA)
    funnel = made["filtered_dataset"].record["notes"]["funnel"]
    assert funnel == {"candidates": 72, "dropped: verifier.wrong": 48, "failed": 0, "kept": 24}
    decisions = table(made["filtered_dataset"], "decision")
    samples = {row["candidate_no"]: row["sample"] for row in table(made["teacher_outputs"], "candidate")}
    assert {(row["verdict"], samples[row["candidate_no"]]) for row in decisions} == {
        ("keep", 1),
        ("drop", 0),
        ("drop", 2),
    }


class Writes:
    """The domain's real teacher answers; what it cannot do is done by rule."""

    def __init__(self, model: Any) -> None:
        self.model, self.identity, self.revision = model, model.identity, model.revision

    def ask(self, requests: list[Request]) -> Any:
        """Answers of the model and of the rule, as one."""
        real = [at for at, request in enumerate(requests) if rule_teacher.style(request) == "answer"]
        yield from ((real[at], said) for at, said in self.model.ask([requests[at] for at in real]))
        rest = [at for at in range(len(requests)) if at not in set(real)]
        yield from ((rest[at], said) for at, said in RuleTeacher().ask([requests[at] for at in rest]))


@pytest.mark.parametrize(
    "writes",
    [
        pytest.param(False, id="as it stands", marks=pytest.mark.slow),
        pytest.param(True, id="with a teacher that writes"),
    ],
)
def test_the_example_runs(tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch, writes: bool) -> None:
    """The files of examples/knowledge, on fewer records."""
    shutil.copytree(repo / "examples" / "knowledge", tmp_path / "assets_config")
    project = Tiny(tmp_path, "finance_kinds")
    project.edit("source.yaml", "unlabeled: 400, validation: 100, test: 600", "unlabeled: 12, validation: 4, test: 8")
    opened = teaching.open_teacher
    if writes:
        monkeypatch.setattr(teaching, "open_teacher", lambda *given: Writes(opened(*given)))
    made = project.run([*DATA, "initial_student", "preference_pairs"])
    candidates = table(made["teacher_outputs"], "candidate")
    answered = Counter(row["kind"] for row in candidates if row["status"] == "ok")
    assert answered["labeling"] == 12 and answered["self_knowledge"] == 48
    assert (answered["expansion"] > 0 and answered["curation"] > 0) == writes
    funnel = made["filtered_dataset"].record["notes"]["funnel"]
    assert funnel["kept"] > 0 and funnel["failed"] == sum(row["status"] == "failed" for row in candidates)
    assert funnel.get("dropped: schema.unknown_label", 0) > 0, "the student before training says anything"
    (curate,) = [row for row in table(made["prompt_set"], "prompt") if row["style"] == "curate"]
    assert "bank customers" in curate["system"]
