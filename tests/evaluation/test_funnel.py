"""Pictures of filtering: readable sizes, the same bytes twice, and no markup in what they are given."""

import struct

import pytest

from distill_dagster.domains.base import Task
from distill_dagster.evaluation.canvas import WIDEST
from distill_dagster.evaluation.funnel import _largest, funnel_figure, label_figure, length_figure
from distill_dagster.evaluation.protocol import Options, examine
from distill_dagster.evaluation.report import gap_figure, loss_figure, score_figure
from evaluation import examination as made

FUNNEL = {"candidates": 100, "dropped: schema.empty": 3, "dropped: near_duplicate": 20, "failed": 2, "kept": 75}
LENGTHS = {
    "prompt": {"edges": [1, 5, 9], "before": [3, 4], "after": [2, 2], "median_before": 4.0, "median_after": 4.0},
    "answer": {"edges": [1, 2], "before": [7], "after": [4], "median_before": 1.0, "median_after": 1.0},
}
LABELS = {"colour": {"red": [5, 4], "green": [2, 0], "$x_{1}$ <b> a rather long name of a label": [1, 1]}}


def size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize(("draw", "given"), [(funnel_figure, FUNNEL), (length_figure, LENGTHS), (label_figure, LABELS)])
def test_pictures_fit_and_are_the_same_every_time(draw, given):
    first = draw(given)
    assert draw(given) == first and b"tEXt" not in first
    assert size(first)[0] <= WIDEST and 3_000 < len(first) < 100_000


def test_pictures_of_much_and_of_nothing():
    reasons = {f"dropped: rule_{at}.reason_{at}": at for at in range(40)}
    many = {"candidates": 1000, **reasons, "failed": 0, "refused": 5, "kept": 1000 - sum(reasons.values()) - 5}
    labels = {
        f"task {at}": {f"label {number} of many": [number, number // 2] for number in range(at * 9)} for at in range(9)
    }
    for png in (funnel_figure(many), label_figure(labels), label_figure({"one": {"only": [3, 3]}})):
        assert png is not None and size(png)[0] <= WIDEST and size(png)[1] < 2000
    assert size(funnel_figure({"candidates": 0, "failed": 0, "kept": 0}))[0] <= WIDEST
    assert label_figure({}) is None and label_figure({"empty": {}}) is None


def test_small_rows_are_added_up_and_none_is_lost():
    rows = [(f"r{at}", at, at * 2) for at in range(30)]
    shown = _largest(rows, 10)
    assert len(shown) == 10 and shown[-1][0] == "21 more"
    assert [sum(row[column] for row in shown) for column in (1, 2)] == [sum(range(30)), 2 * sum(range(30))]
    assert shown[:-1] == rows[21:] and _largest(rows[:10], 10) == rows[:10]


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 7])
def test_the_pictures_of_a_report_are_not_cut_in_the_dialog(tasks):
    listed = [Task(f"t{at}", "text", "A rather long title of a task that goes on", "") for at in range(tasks)]
    scores = {name: [float(value) for value in arm] * tasks for name, arm in made.arms(made.GOOD, 20).items()}
    report = examine(
        [item for task in listed for item in made.items(task, 20)], scores, Options(tasks=listed, resamples=100)
    )
    for draw in (score_figure, gap_figure):
        assert size(draw(report))[0] <= WIDEST
    assert size(loss_figure({"student": [(1, 2.0)]}))[0] <= WIDEST
