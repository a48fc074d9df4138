"""The verdict that each set of numbers allows, and its wording."""

import json

import numpy as np
import pyarrow as pa
import pytest

from distill_dagster.errors import DistillError
from distill_dagster.evaluation.page import page
from distill_dagster.evaluation.protocol import Options, Report, examine
from distill_dagster.evaluation.report import score_figure, to_markdown
from evaluation import examination as made
from evaluation.examination import FIELDS, GOOD, ROUTING, SUMS


def test_helped():
    task = made.one(GOOD)
    gap = task["gap"]["1"]
    assert task["verdict"] == "helped" and task["claim"] and task["informative"] and not task["reasons"]
    assert gap["value"] == pytest.approx((0.78 - 0.45) / (0.92 - 0.45), abs=1e-6)
    assert gap["low"] < gap["value"] < gap["high"]
    assert task["gap"]["4"]["value"] == pytest.approx((0.78 - 0.5) / (0.92 - 0.5), abs=1e-6)
    assert task["sentence"].startswith("Distillation closed 0.70 [0.6")
    assert task["sentence"].endswith("of the gap between control (0.45) and teacher (0.92).")
    assert task["n"] == 600 and task["subjects"] == 600 and task["chance"]["uniform"] == 0.25
    assert list(task["arms"])[-1] == "student" and task["arms"]["student"]["value"] == 0.78
    assert task["teacher_minus_linear"]["value"] == pytest.approx(0.42)
    assert task["notes"] == []


def test_no_claim_without_larger_budgets():
    task = made.one({name: share for name, share in GOOD.items() if name not in ("control_2", "control_4")})
    assert task["verdict"] == "helped" and not task["claim"]
    assert task["notes"] == [
        "The control at 2× and 4× the budget was not measured, so this is no claim: the control may have been starved."
    ]


def test_a_starved_control_cannot_win():
    task = made.one({**GOOD, "control_4": 0.79})
    assert task["verdict"] == "budget" and not task["claim"]
    assert "of the gap between control (0.45) and teacher (0.92) at the same budget" in task["sentence"]
    assert "not clearly better than a control at 4× the budget" in task["sentence"]
    assert task["sentence"].endswith("no claim.")


def test_a_larger_control_that_reaches_the_teacher_leaves_no_gap():
    task = made.one({**GOOD, "control_4": 0.92})
    assert task["gap"]["4"] is None and task["gap"]["2"] is not None
    assert "At 4× the budget the control reaches the teacher: no gap is left to divide by." in task["notes"]


def test_did_not_help():
    task = made.one({**GOOD, "student": 0.45})
    assert task["verdict"] == "no_help" and task["informative"]
    assert task["sentence"].startswith("Distillation did not help: student minus control is 0.000 [-0.")
    worse = made.one({**GOOD, "student": 0.2})
    assert worse["verdict"] == "no_help"
    assert worse["sentence"].startswith("Distillation did not help: the student is worse than its control, by -0.250")
    assert any("does not beat the baseline without a network" in note for note in worse["notes"])


def test_not_informative_where_the_teacher_does_not_beat_the_baseline():
    task = made.one({**GOOD, "linear_teacher": 0.91})
    assert task["verdict"] == "not_informative" and not task["informative"]
    assert task["gap"] == {"1": None, "2": None, "4": None}
    assert task["sentence"].startswith(
        "Not informative, because the teacher does not beat the linear baseline (teacher minus baseline is 0.010 [-0."
    )
    other = made.one({**GOOD, "linear_teacher": 0.95}, task=SUMS)
    assert "the teacher does not beat the nearest-seed baseline" in other["sentence"]


def test_not_informative_where_teacher_and_control_cannot_be_told_apart():
    task = made.one({**GOOD, "teacher": 0.46, "linear_teacher": 0.1})
    assert task["verdict"] == "not_informative"
    assert "because the t−k interval includes 0: teacher minus control is 0.010 [-0." in task["sentence"]
    worse = made.one({**GOOD, "teacher": 0.3, "linear_teacher": 0.1})
    assert "because the control is better than the teacher (t−k is -0.150" in worse["sentence"]
    both = made.one({**GOOD, "teacher": 0.46})
    assert len(both["reasons"]) == 2 and " and the t−k interval" in both["sentence"]


def test_not_informative_without_baseline_or_with_few_subjects():
    task = made.one({name: share for name, share in GOOD.items() if name != "linear_teacher"})
    assert task["sentence"] == ("Not informative, because no linear baseline was measured on the teacher's data.")
    pilot = examine(made.items(ROUTING, 40, each=8), made.arms(GOOD, 40), Options(tasks=(ROUTING,), resamples=200))
    assert "there are only 5 independent subjects (at least 10 are needed)" in pilot.content["tasks"][0]["sentence"]


def test_no_interval_is_claimed_of_one_subject():
    items = [dict(item, subject_key="clinic") for item in made.items(ROUTING, 100)]
    report = examine(items, made.arms(GOOD, 100), Options(tasks=(ROUTING,), resamples=200))
    (task,) = report.content["tasks"]
    assert task["arms"]["student"] == {"value": 0.78, "low": None, "high": None}
    assert task["reasons"] == ["there are only 1 independent subjects (at least 10 are needed)"]
    assert not task["claim"] and not task["notes"] and task["gap"] == {"1": None, "2": None, "4": None}
    assert "| 0.780 [–, –] |" in to_markdown(report) and "0.780 [–, –]" in page(report)
    assert score_figure(report).startswith(b"\x89PNG")
    assert Report.from_json(report.to_json()).content == report.content
    large = made.items(SUMS, 100)
    both = examine([*items, *large], made.arms(GOOD, 200), Options(tasks=(ROUTING, SUMS), resamples=200)).content
    assert both["tasks"][1]["arms"]["student"]["low"] > 0 and both["overall"]["arms"]["student"]["low"] is None


def test_all_right_against_all_wrong_in_ten_items_is_not_certain():
    shares = {arm: 1.0 if arm in ("teacher", "student") else 0.0 for arm in GOOD}
    task = made.one(shares, count=10)
    assert task["student_minus_control"]["1"] == {"value": 1.0, "low": 0.383006, "high": 1.0}
    assert task["gap"]["1"]["low"] < 0.3 and task["gap"]["1"]["high"] > 1.7
    tasks = (ROUTING, SUMS)
    arms = {name: [share] * 20 for name, share in shares.items()}
    items = [item for task in tasks for item in made.items(task, 10)]
    overall = examine(items, arms, Options(tasks=tasks, resamples=200)).content["overall"]
    assert overall["arms"]["student"] == {"value": 1.0, "low": 0.691503, "high": 1.0}
    assert overall["student_minus_control"] == {"value": 1.0, "low": 0.383006, "high": 1.0}


def test_not_measured():
    without = {name: share for name, share in GOOD.items() if not name.startswith("control")}
    off = made.one(without, control="off")
    assert off["verdict"] == "not_measured" and off["gap"] == {} and not off["informative"]
    assert off["sentence"] == "Not measured: the control is switched off (control: off)."
    assert made.one(without)["sentence"] == "Not measured: no control at the student's own budget."
    only_large = {name: share for name, share in GOOD.items() if name != "control_1"}
    assert made.one(only_large)["verdict"] == "not_measured"
    mute = made.one({name: share for name, share in GOOD.items() if name != "teacher"})
    assert mute["sentence"] == "Not measured: no teacher scores."


def test_overall():
    content = made.three().content
    overall, tasks = content["overall"], content["tasks"]
    assert [task["verdict"] for task in tasks] == ["helped", "not_informative", "no_help"]
    assert overall["arms"]["student"]["value"] == pytest.approx((0.78 + 0.78 + 0.45) / 3, abs=5e-3)
    assert overall["arms"]["student"]["low"] < overall["arms"]["student"]["value"] < overall["arms"]["student"]["high"]
    widest = max(task["arms"]["student"]["high"] - task["arms"]["student"]["low"] for task in tasks)
    assert overall["arms"]["student"]["high"] - overall["arms"]["student"]["low"] < widest
    assert overall["chance"] == pytest.approx(0.25 / 3, abs=1e-6)
    assert (overall["tasks"], overall["informative"], overall["claims"]) == (3, 2, 1)
    assert overall["student_minus_control"]["low"] > 0
    assert overall["sentence"] == (
        "Distillation closed part of the gap in 1 of 3 tasks (Routing 0.70); it did not help in Sums; "
        "not informative: Payment fields."
    )


def test_a_report_is_plain_and_the_same_every_time():
    first, second = made.three(), made.three(resources={"student": {"seconds_per_item": 0.2}})
    assert first.to_json() == second.to_json()
    assert second.resources == {"student": {"seconds_per_item": 0.2}} and "seconds_per_item" not in second.to_json()
    assert Report.from_json(first.to_json()).content == first.content == json.loads(first.to_json())

    def floats(value):
        if isinstance(value, dict):
            value = list(value.values())
        return (
            [value]
            if isinstance(value, float)
            else [f for v in value for f in floats(v)]
            if isinstance(value, list)
            else []
        )

    assert all(round(value, 6) == value for value in floats(first.content))


def test_a_task_is_judged_alike_alone_and_beside_others():
    listed = made.items(ROUTING, 300) + made.items(SUMS, 300)
    table = {name: np.concatenate([scores, scores]) for name, scores in made.arms(GOOD, 300).items()}
    options = Options(tasks=(ROUTING, SUMS), resamples=300)
    together = examine(listed, table, options).content["tasks"][0]
    alone = examine(made.items(ROUTING, 300), made.arms(GOOD, 300), options).content["tasks"][0]
    assert together == alone


def test_subjects_shared_by_tasks_move_together():
    """One patient examined in two tasks is one patient: the mean over tasks is no surer than each of them."""
    scores = made.arm(0.5, 200)
    options = Options(tasks=(ROUTING, SUMS), resamples=1000)
    apart = examine(made.items(ROUTING, 200) + made.items(SUMS, 200), {"student": np.tile(scores, 2)}, options)
    joint = examine(
        made.items(ROUTING, 200, subject="p") + made.items(SUMS, 200, subject="p"),
        {"student": np.tile(scores, 2)},
        options,
    )

    def width(report):
        found = report.content["overall"]["arms"]["student"]
        return found["high"] - found["low"]

    assert width(joint) / width(apart) == pytest.approx(np.sqrt(2), rel=0.12)


def test_seeds_are_counted_and_named():
    listed, base = made.items(ROUTING, 300), made.arms(GOOD, 300)
    single = examine(listed, base, Options(tasks=(ROUTING,), resamples=300)).content
    assert (single["seeds"], single["interval_over"]) == (1, "items only")
    student = np.stack([made.arm(share, 300, 50 + i) for i, share in enumerate((0.70, 0.78, 0.86))])
    control = np.stack([made.arm(share, 300, 60 + i) for i, share in enumerate((0.40, 0.45, 0.50))])
    many = examine(listed, {**base, "student": student, "control_1": control}, Options(tasks=(ROUTING,), resamples=300))
    assert (many.content["seeds"], many.content["interval_over"]) == (3, "items and seeds")
    one, three = single["tasks"][0]["arms"], many.content["tasks"][0]["arms"]
    assert three["student"]["value"] == pytest.approx(0.78)
    assert three["student"]["high"] - three["student"]["low"] > 2 * (one["student"]["high"] - one["student"]["low"])
    assert three["teacher"] == one["teacher"]


def test_arms_may_be_missing_from_a_task():
    listed = made.items(ROUTING, 50) + made.items(FIELDS, 50)
    table = {name: np.concatenate([scores, scores]) for name, scores in made.arms(GOOD, 50).items()}
    table["teacher"][50:] = np.nan
    content = examine(listed, table, Options(tasks=(ROUTING, FIELDS), resamples=200)).content
    assert "teacher" not in content["tasks"][1]["arms"] and content["tasks"][1]["verdict"] == "not_measured"
    assert "teacher" not in content["overall"]["arms"]


def test_items_as_table_and_unknown_tasks():
    listed = made.items(ROUTING, 30)
    table = examine(pa.Table.from_pylist(listed), made.arms(GOOD, 30), Options(resamples=100)).content
    assert table["tasks"][0]["kind"] == "text" and table["tasks"][0]["title"] == "routing"
    assert examine(listed, made.arms(GOOD, 30), Options(resamples=100)).content == table


def test_confusion_counts():
    listed = made.items(ROUTING, 8)
    said = ["fee", "refund", "fraud", "limit", "refund", "nonsense", None, "Limit."]
    options = Options(tasks=(ROUTING,), resamples=100, outputs={"student": said})
    matrix = examine(listed, {"student": np.zeros(8)}, options).content["tasks"][0]["confusion"]
    assert matrix["labels"] == list(ROUTING.labels)
    assert matrix["counts"] == [[1, 1, 0, 0, 0], [0, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0, 0, 0, 2, 0]]


def test_bad_scores_are_named():
    listed = made.items(ROUTING, 4)
    with pytest.raises(DistillError, match="arm 'student': 3 scores for 4 items"):
        examine(listed, {"student": [1, 0, 1]})
    with pytest.raises(DistillError, match="a score of 1.5 lies outside 0 to 1"):
        examine(listed, {"student": [1, 0, 1, 1.5]})
    with pytest.raises(DistillError, match="arm 'student', task 'routing': 1 of 4 scores are missing"):
        examine(listed, {"student": [1, 0, 1, float("nan")]})
    with pytest.raises(DistillError, match="2 seeds where another arm has 3"):
        examine(listed, {"control_1": np.zeros((3, 4)), "student": np.zeros((2, 4))})
    with pytest.raises(DistillError, match="there are no items"):
        examine([], {})
