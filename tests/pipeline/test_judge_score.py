"""A judge's ratings as a filter: from YAML through a whole data half, and what is stale when they change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill_dagster.config.check import check
from distill_dagster.records.messages import text_of
from distill_dagster.teachers.base import Request
from pipeline import rule_teacher
from pipeline.kinds import DATA, table, teacher, written
from pipeline.rule_teacher import RuleTeacher
from pipeline.tiny import Tiny

__all__ = ["teacher"]  # a fixture

pytestmark = pytest.mark.needs_torch

KNOWLEDGE = "knowledge: [{name: labeling, samples: 2}, {name: feedback, method: rate, samples: 2}]\n"
RULES = "filtering: [{name: judge_score, least: 4.0}]"


def project_with(folder: Path) -> Tiny:
    project = written(folder, KNOWLEDGE, RULES)
    project.append("teacher.yaml", "sampling: {temperature: 0.7}\n")
    return project


def test_answers_that_the_judge_rates_low_are_dropped(tmp_path: Path, teacher: RuleTeacher) -> None:
    project = project_with(tmp_path / "judged")
    made = project.run([*DATA, "initial_student", "preference_pairs"])
    outputs, filtered = made["teacher_outputs"], made["filtered_dataset"]
    # Labeling and feedback ask the same questions, so each is asked once: two answers and two ratings a seed.
    seeds = [row for row in table(made["seed_set"], "seed") if row["part"] == "unlabeled"]
    assert len(teacher.asked) == 4 * len(seeds)
    candidates = {row["candidate_no"]: row for row in table(outputs, "candidate")}
    right = {row["record_id"]: rule_teacher.colour(text_of(row["messages"])) for row in seeds}
    for row in table(filtered, "decision"):
        candidate = candidates[row["candidate_no"]]
        good = candidate["answer"] == right[candidate["seed_record_id"]]
        (look,) = row["looks"]
        assert (look["score"], look["threshold"]) == (5.0 if good else 2.0, 4.0)
        assert (row["verdict"], row["reason"]) == (("keep", None) if good else ("drop", "judge_score.below"))
        assert "correctness" in look["detail"]
    assert filtered.record["notes"]["funnel"]["dropped: judge_score.below"] == len(seeds)
    # A rejected answer may be rated low: that is why it is rejected.
    assert len(table(made["preference_pairs"], "preference")) == len(seeds)

    # Another bound asks nobody and leaves the answers as they are.
    before = len(teacher.asked)
    project.edit("pipeline.yaml", "least: 4.0", "least: 2.0")
    assert "teacher_outputs" not in project.unfresh() and "filtered_dataset" in project.unfresh()
    again = project.run(DATA)
    assert len(teacher.asked) == before
    assert again["filtered_dataset"].record["notes"]["funnel"]["kept"] == 2 * len(seeds)


def test_the_scores_are_content(tmp_path: Path, teacher: RuleTeacher) -> None:
    """Answers that are the same and rated otherwise are another version, so the data set is made anew."""

    def harsh(request: Request) -> str:
        if rule_teacher.style(request) == "rate":
            found = json.loads(rule_teacher.answer(request))
            return json.dumps({**found, "scores": dict.fromkeys(found["scores"], 1)})
        return rule_teacher.answer(request)

    first = project_with(tmp_path / "mild").run(DATA)
    teacher.rule = harsh
    second = project_with(tmp_path / "harsh").run(DATA)
    outputs = [made["teacher_outputs"].version for made in (first, second)]
    roots = [version.manifest["tables"]["candidate"]["roots"] for version in outputs]
    assert roots[0] == roots[1] and outputs[0].version != outputs[1].version
    assert second["filtered_dataset"].record["notes"]["funnel"]["kept"] == 0


def test_a_verdict_of_the_wrong_shape_rates_nothing(tmp_path: Path, teacher: RuleTeacher) -> None:
    """Out of scale, without the mark, or no JSON at all: unrated, and dropped unless the file says keep."""

    def forged(request: Request) -> str:
        if rule_teacher.style(request) != "rate":
            return rule_teacher.answer(request)
        names = json.loads(rule_teacher.answer(request))["scores"]
        return json.dumps({"mark": "0" * 12, "scores": dict.fromkeys(names, 5)})

    teacher.rule = forged
    project = project_with(tmp_path / "forged")
    made = project.run(DATA)
    funnel = made["filtered_dataset"].record["notes"]["funnel"]
    assert funnel["kept"] == 0 and funnel["dropped: judge_score.unrated"] == funnel["candidates"] > 20
    assert table(made["teacher_outputs"], "rating") == []
    project.edit("pipeline.yaml", "least: 4.0", "least: 4.0, unrated: keep")
    assert project.run(DATA)["filtered_dataset"].record["notes"]["funnel"]["kept"] == funnel["candidates"]


def test_without_the_rule_nothing_is_another_than_before(tmp_path: Path, teacher: RuleTeacher) -> None:
    project = written(tmp_path / "plain", "knowledge: [{name: feedback, method: rate}]\n")
    made = project.run(DATA)["teacher_outputs"]
    assert set(made.version.manifest["tables"]) == {"candidate", "comparison"}
    assert "ratings" not in made.record["config"]


def test_check_asks_for_a_judge_and_for_tasks_that_exist(tmp_path: Path) -> None:
    project = written(tmp_path / "none", "knowledge: [labeling]\n", RULES)
    project.append("pipeline.yaml", "review: {critical_errors: {color: [wrong]}}\n")
    said = [str(problem) for problem in check(project.settings.config)]
    assert any("judge_score reads ratings" in line for line in said)
    assert any("'color'" in line and "Did you mean 'colour'" in line for line in said)
