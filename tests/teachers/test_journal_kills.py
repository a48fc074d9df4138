"""A journal's process is killed again and again: nothing is lost, nothing answered is asked again.

The oracle reads the journal's tables and the teacher's own bill, and imports nothing of the package.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("journal_worker.py")
COUNT = 60


class Run:
    """Files of one journal under test, and what they say."""

    def __init__(self, folder: Path, place, window: int, streams: bool) -> None:
        folder.mkdir(exist_ok=True)
        self.place, self.bill, self.answers = place, folder / "bill", folder / "answers.json"
        self.window, self.streams = window, streams

    def start(self, pause: float, **environment: str) -> subprocess.Popen:
        files = [self.place.name, str(self.bill), str(self.answers)]
        settings = [str(COUNT), str(self.window), str(int(self.streams)), str(pause)]
        return subprocess.Popen(
            [sys.executable, str(WORKER), *files, *settings], stdout=subprocess.PIPE, env={**os.environ, **environment}
        )

    def finish(self) -> list:
        process = self.start(0.0)
        assert process.communicate(timeout=60)[0] == b"open\n" and process.returncode == 0
        return json.loads(self.answers.read_text())

    def billed(self) -> Counter:
        return Counter(self.bill.read_text().splitlines() if self.bill.exists() else [])

    def rows(self, query: str) -> list:
        return self.place.rows(query)

    def answered(self) -> set[str]:
        try:
            rows = self.rows("SELECT text FROM answer")
        except Exception as error:
            early = ("unable to open", "no such table", "does not exist")
            assert any(words in str(error) for words in early), error
            return set()  # killed before the tables were made
        texts = [text.decode() if isinstance(text, bytes) else text for (text,) in rows]
        return {text.removeprefix("answer to ") for text in texts}

    def check(self, kills: int) -> None:
        """Finish the work and hold journal, bill and answers against each other."""
        before, answered = self.billed(), self.answered()
        final = self.finish()
        assert [text for text, _ in final] == [f"answer to question {at}" for at in range(COUNT)]
        assert {f"question {at}" for at, (_, reused) in enumerate(final) if reused} == answered
        bill = self.billed()
        assert all(bill[text] == before[text] for text in answered)
        assert sum(bill.values()) - COUNT <= kills * self.window
        attempts = dict(self.rows("SELECT outcome, COUNT(*) FROM attempt GROUP BY outcome"))
        assert set(attempts) <= {"answered", "unknown"} and attempts["answered"] == COUNT
        assert sum(attempts.values()) >= sum(bill.values())
        assert self.rows("SELECT * FROM lease") == self.rows("SELECT * FROM holder") == []


def kill_at_random(run: Run, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(kills):
        known = run.answered()
        before = run.billed()
        process = run.start(0.004)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
        assert all(run.billed()[text] == before[text] for text in known)
    run.check(kills)


@pytest.mark.kill
@pytest.mark.parametrize("streams", [False, True])
def test_killed_at_random_moments(tmp_path, place, streams):
    kill_at_random(Run(tmp_path, place, 8, streams), kills=3, seed=5 + streams)


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("window", [1, 8, 256])
def test_killed_many_times(tmp_path, place, window):
    kill_at_random(Run(tmp_path, place, window, window > 1), kills=15, seed=window)


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_every_fault_point(tmp_path, new_place):
    log = tmp_path / "points"
    process = Run(tmp_path, new_place(), 32, False).start(0.0, DISTILL_FAULT_LOG=str(log))
    assert process.communicate(timeout=60)[0] == b"open\n"
    points = log.read_text().splitlines()
    names = {line.split()[2] for line in points}
    assert {f"journal.{name}.commit" for name in ("open", "claim", "sent", "settled", "close")} <= names
    for number in range(1, len(points) + 1):
        run = Run(tmp_path / str(number), new_place(), 32, False)
        process = run.start(0.0, DISTILL_FAULT_AT=str(number))
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, points[number - 1]
        run.check(kills=1)
