"""Agreement and the bound on critical errors, against worked examples that others published."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.config.models import ReviewOptions
from distill_dagster.deployment import gate
from distill_dagster.evaluation.agreement import agreement, cohen_kappa, krippendorff_alpha
from distill_dagster.evaluation.intervals import Bootstrap
from distill_dagster.evaluation.review import upper_bound


def test_kappa_of_cohens_own_example() -> None:
    """Cohen (1960), table 1: 200 patients, three diagnoses, kappa 0.49."""
    table = [[88, 10, 2], [14, 40, 6], [18, 10, 12]]
    pairs = [(row, column) for row in range(3) for column in range(3) for _ in range(table[row][column])]
    assert cohen_kappa(pairs) == pytest.approx(0.29 / 0.59, abs=1e-12)


def test_alpha_of_krippendorffs_own_examples() -> None:
    """Krippendorff (2011): two observers of ten units (0.095); four of twelve, some values missing (0.743)."""
    two = list(zip([0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0], strict=True))
    assert round(krippendorff_alpha(two), 3) == 0.095
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [[value for value in unit if value is not None] for unit in zip(*observers, strict=True)]
    assert round(krippendorff_alpha(units), 3) == 0.743


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=60))
def test_kappa_is_scikit_learns(pairs) -> None:
    from sklearn.metrics import cohen_kappa_score

    ours = cohen_kappa(pairs)
    if math.isnan(ours):
        assert len({value for pair in pairs for value in pair}) == 1
    else:
        assert ours == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)), abs=1e-9)


def test_the_measure_follows_the_number_of_reviewers() -> None:
    units = [{"anna": "accept", "ben": "accept"}, {"anna": "accept", "ben": "reject"}, {"anna": "reject"}]
    two = agreement(units)
    assert two is not None and (two.measure, two.records, two.same) == ("Cohen's kappa", 2, 0.5)
    three = agreement([*units, {"anna": "accept", "carla": "reject"}])
    assert three is not None and (three.measure, three.records) == ("Krippendorff's alpha", 3)
    assert agreement([{"anna": "accept"}, {"ben": "accept"}]) is None
    same = agreement([{"anna": "accept", "ben": "accept"}] * 5)
    assert same is not None and same.value is None and same.same == 1.0


@pytest.mark.parametrize("reviewers", [2, 3])
def test_the_interval_holds_the_truth_as_often_as_it_says(reviewers: int) -> None:
    """Reviewers who copy the truth with probability 0.8 and guess otherwise: kappa and alpha are 0.64."""
    held = 0
    for draw in range(200):
        random = np.random.RandomState(draw)
        truth = random.randint(0, 2, 150)
        said = [np.where(random.rand(150) < 0.8, truth, random.randint(0, 2, 150)) for _ in range(reviewers)]
        units = [{f"r{at}": int(column[row]) for at, column in enumerate(said)} for row in range(150)]
        found = agreement(units, Bootstrap(resamples=400))
        assert found is not None and found.low is not None and found.high is not None
        held += found.low <= 0.64 <= found.high
    assert 180 <= held <= 199


@pytest.mark.parametrize(
    ("errors", "records", "bound"), [(0, 30, 0.0950), (0, 59, 0.0495), (1, 100, 0.0466), (10, 100, 0.1637)]
)
def test_the_bound_is_clopper_and_pearsons(errors: int, records: int, bound: float) -> None:
    found = upper_bound(errors, records)
    assert found == pytest.approx(bound, abs=1e-4)
    # What makes it exact: at the bound, so few errors or fewer come up in one case of twenty.
    tail = sum(math.comb(records, k) * found**k * (1 - found) ** (records - k) for k in range(errors + 1))
    assert tail == pytest.approx(0.05, abs=1e-9)


def test_the_bound_of_nothing_and_of_everything() -> None:
    assert upper_bound(0, 0) == 1.0
    assert upper_bound(7, 7) == 1.0


def share(records: int, critical: int, blank: int = 0) -> dict:
    return {
        "records": records,
        "critical": critical,
        "without a verdict": blank,
        "upper": upper_bound(critical + blank, records),
    }


def test_the_gate_asks_for_the_upper_bound() -> None:
    options = ReviewOptions(critical_errors={"dose": ["wrong dose"], "other": []}, max_upper_bound=0.05)
    assert gate.critical_errors({"all": share(59, 0), "tasks": {}}, options).passed
    assert not gate.critical_errors({"all": share(58, 0), "tasks": {}}, options).passed
    found = gate.critical_errors({"all": share(100, 1, 1), "tasks": {}}, options)
    assert not found.passed and "1 critical errors in 100 reviewed records, 1 without a verdict" in found.reason
    by_task = options.model_copy(update={"by_task": True})
    judged = {"all": share(1000, 0), "tasks": {"dose": share(20, 0), "other": share(0, 0)}}
    found = gate.critical_errors(judged, by_task)
    assert not found.passed and found.reason.startswith("dose: ") and "other" not in found.reason
    assert gate.critical_errors({"all": share(0, 0), "tasks": {}}, ReviewOptions()).passed
