"""The progress that the UI's log shows: how far a stage is and how long it will take."""

from types import SimpleNamespace

import pytest

from distill_dagster.assets import base


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch):
    """A report of progress, a clock to turn, and the lines that were logged."""
    clock, lines = [100.0], []
    monkeypatch.setattr(base.time, "monotonic", lambda: clock[0])
    report = base._logged(SimpleNamespace(log=SimpleNamespace(info=lines.append)))

    def at(seconds: float, *progress) -> list[str]:
        clock[0] = 100.0 + seconds
        report(*progress)
        return lines

    return at


def test_time_left_counts_what_was_done_here(heard) -> None:
    heard(1, 600, 1000, "teacher: labeling, round 1")  # 600 were known, and took no time
    assert heard(11, 700, 1000, "teacher: labeling, 100 calls")[-1].endswith("700 of 1,000, about 30 s left")
    assert len(heard(12, 710, 1000, "teacher: labeling")) == 2  # a line every few seconds


def test_another_round_counts_anew(heard) -> None:
    heard(1, 0, 10, "round 1")
    heard(101, 10, 10, "round 1")
    heard(102, 0, 40, "round 2")
    assert heard(112, 10, 40, "round 2")[-1] == "round 2: 10 of 40, about 30 s left"
    assert heard(120, 3, None, "jobs")[-1] == "jobs: 3"
