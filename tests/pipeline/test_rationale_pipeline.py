"""A teacher's explanations from YAML to the report: as a second task, and before every answer."""

import json
from pathlib import Path

import pytest

from distill_dagster.config.models import Recipe
from distill_dagster.errors import ConfigError, TrainingError
from distill_dagster.lineage.engine import Made
from distill_dagster.stages import examination, training
from distill_dagster.teachers.base import Request
from pipeline import rule_teacher, tiny
from pipeline.kinds import DATA, table, teacher, written
from pipeline.rule_teacher import RuleTeacher
from pipeline.tiny import RECIPE, Tiny

__all__ = ["teacher"]  # a fixture

pytestmark = pytest.mark.needs_torch

LATER = ["initial_student", "student_checkpoint", "control_checkpoint", "eval_report"]


def explained(request: Request) -> str:
    said = rule_teacher.colour(request.messages[-1]["content"])
    return f"The text says {said}.\nAnswer: {said}"


@pytest.fixture
def project(tmp_path: Path, teacher: RuleTeacher) -> Tiny:
    """A teacher that explains, and a student that nothing has been said about."""
    teacher.rule = explained
    return written(tmp_path, "knowledge: [{name: labeling, rationale: true}]\n")


def with_mode(project: Tiny, mode: str) -> None:
    project.edit("pipeline.yaml", f"training: {RECIPE}", f"training: {RECIPE[:-1]}, rationale: {{{mode}}}}}")


def losses(made: Made, name: str) -> list[dict]:
    path = made.version.place / "runs" / made.run / f"{name}_metrics.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, list]:
    """What each model is trained on, by name."""
    from distill_dagster.training import rationale

    seen: dict[str, list] = {}
    usual = training.run

    def run(job, **options):
        seen[options["name"]] = rationale.rows(options["examples"], options["recipe"].rationale)
        return usual(job, **options)

    monkeypatch.setattr(training, "run", run)
    return seen


@pytest.mark.slow
def test_a_second_task(project: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with_mode(project, "mode: multi_task, weight: 0.25")
    seen, asked = trained(monkeypatch), []
    usual = examination.measure

    def measure(backend, chats, *rest, **options):
        asked.extend(turn["content"] for chat in chats for turn in chat)
        return usual(backend, chats, *rest, **options)

    monkeypatch.setattr(examination, "measure", measure)
    made = project.run([*DATA, *LATER])
    examples = table(made["filtered_dataset"], "example")
    with_one = sum(row["rationale"] is not None for row in examples)
    assert with_one and len(seen["student"]) == len(examples) + with_one
    assert sum(row["task"] == "colour#rationale" for row in seen["student"]) == with_one
    # Gold has no explanations, so the control has one task.
    assert not any("#" in row["task"] for row in seen["control_1x"])
    rows = losses(made["student_checkpoint"], "student")
    for row in rows:
        assert row["loss"] == pytest.approx(row["sft"] + 0.25 * row["rationale"], rel=1e-5)
    assert any(row["rationale"] > 0 for row in rows)
    assert "rationale" not in losses(made["control_checkpoint"], "control_1x")[0]
    # Nobody asks for explanations at the examination.
    assert asked and not any("[rationale]" in text for text in asked)


@pytest.mark.slow
def test_before_every_answer(project: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with_mode(project, "mode: in_answer")
    seen, room = trained(monkeypatch), []

    def measure(backend, chats, sampling, **options):
        room.extend(entry["max_new_tokens"] for entry in sampling)
        worked = ["The text says red.\nAnswer: red" if index % 2 else "green" for index in range(len(chats))]
        return worked, {"seconds_per_item": 0.0, "peak_memory_bytes": 0}

    monkeypatch.setattr(examination, "measure", measure)
    made = project.run([*DATA, *LATER])
    answers = {row["messages"][-1]["parts"][0]["text"] for row in seen["student"] if row["origin"] == "teacher"}
    assert answers <= {f"The text says {one}.\nAnswer: {one}" for one in ("red", "green")} and answers
    # There is room for the explanation, and what follows it is the answer; a plain answer stays one.
    assert set(room) == {4 + examination.RATIONALE_TOKENS}
    outputs = [row["output"] for row in table(made["eval_report"], "item_score") if row["arm"] == "student"]
    assert outputs == ["red" if index % 2 else "green" for index in range(len(outputs))]


def test_without_explanations_it_does_not_start(tmp_path: Path, teacher: RuleTeacher) -> None:
    project = written(tmp_path, "knowledge: [labeling]\n")
    with_mode(project, "mode: multi_task")
    project.run([*DATA, "initial_student"])
    with pytest.raises(TrainingError, match="multi_task, and no example has an explanation.*rationale: true"):
        project.run(["student_checkpoint"])


def test_what_does_not_go_together_is_said_with_its_line(tmp_path: Path) -> None:
    project = tiny.finance(tmp_path)
    old = f"training: {RECIPE}"
    objective = "objective: {divergence: {weight: 1.0, signals: live, k: 0}}"
    more = f"{old[:-1]}, {objective}, rationale: {{mode: multi_task}}}}"
    project.edit("pipeline.yaml", old, more)
    with pytest.raises(ConfigError, match="multi_task teaches two texts"):
        project.project()
    project.edit("pipeline.yaml", "signals: live, k: 0", "k: 4")
    project.edit("pipeline.yaml", "mode: multi_task", "mode: in_answer")
    with pytest.raises(ConfigError, match="stored signals are of the answers alone"):
        project.project()
    assert Recipe().rationale.weight == 0.5
