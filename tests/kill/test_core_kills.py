"""`distill-dagster run` of a pipeline whose teacher is behind an API, killed again and again at seeded moments.

DISTILL_KILLS says how often (20; `make test-kills` 100). The oracles are the server's bill and the journal's file.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from pipeline import tiny
from pipeline.tiny import Tiny
from teachers.fault_server import FaultServer

# Hundreds of runs in one test: the usual limit is too short.
pytestmark = [pytest.mark.kill, pytest.mark.needs_torch, pytest.mark.timeout(1800)]

KILLS = int(os.environ.get("DISTILL_KILLS", "20"))
SEED = int(os.environ.get("DISTILL_KILL_SEED", "1"))
WANTED = (*tiny.SOURCE, *tiny.DATA)
IN_FLIGHT = 8
LATENCY = 0.02
TEACHER = f"""\
kind: teacher
name: nano_teacher
backend: openai
model: test-model
revision: "1"
prompt_style: short
endpoint: {{url: URL, deadline: 20.0, max_in_flight: {IN_FLIGHT}}}
"""


def colour(body, sound):
    """The colour that the question names."""
    said = next(word for word in body["messages"][-1]["content"].split() if word in ("red", "green"))
    sound["choices"][0]["message"]["content"] = said
    return sound


def project(folder: Path, server: FaultServer) -> Tiny:
    """A project with a few hundred questions that nothing has run in."""
    made = tiny.parcels(folder)
    made.write_lines("seeds.jsonl", tiny.rows("s", 360))
    (made.folder / "assets_config" / "teacher.yaml").write_text(TEACHER.replace("URL", server.url), "utf-8")
    return made


def journal(made: Tiny, query: str) -> list[tuple]:
    """Rows of the journal's file; none before it has tables."""
    path = made.settings.state / "journal.sqlite"
    if not path.exists():
        return []
    database = sqlite3.connect(path)
    try:
        return database.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        database.close()


def answered(made: Tiny) -> int:
    return sum(count for (count,) in journal(made, "SELECT count(*) FROM answer"))


class Moment:
    """When to kill: some requests after the start, or some time after it; drawn from a seed."""

    def __init__(self, rng: random.Random) -> None:
        self.requests = rng.randint(1, 30) if rng.random() < 0.6 else None
        self.seconds = rng.uniform(0.0, 0.03) if self.requests else rng.uniform(0.0, 1.2)

    def wait(self, pid: int, server: FaultServer) -> None:
        """Until it has come, or the process has gone."""
        before, gone = server.requests, Path(f"/proc/{pid}")
        while self.requests and server.requests < before + self.requests and gone.exists():
            time.sleep(0.001)
        time.sleep(self.seconds)


def killed_until_done(driver, made: Tiny, server: FaultServer, rng: random.Random, most: int) -> int:
    """Start the command and kill it, until it finishes or was killed `most` times; how often it was killed."""
    kills = 0
    while kills < most:
        known, billed = answered(made), sum(server.billed.values())
        pid = driver.start(made, select=WANTED)
        Moment(rng).wait(pid, server)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has finished
            pass
        status = driver.answer()
        said = (made.folder / "log.txt").read_text("utf-8", "replace")
        assert status in (0, -signal.SIGKILL), said
        # What was answered before is still there, and what was billed since is not less than what was answered since.
        assert known <= answered(made) <= known + sum(server.billed.values()) - billed
        kills += status != 0
        if status == 0:
            return kills
    return kills


@pytest.mark.slow
def test_killed_at_seeded_moments(driver, tmp_path: Path, record_property) -> None:
    with FaultServer(reply=colour, latency=LATENCY) as server:
        undisturbed = project(tmp_path / "undisturbed", server)
        status, said = driver.run(undisturbed, select=WANTED)
        assert status == 0, said
        expected, questions = undisturbed.versions(), server.requests
        assert len(expected) == len(WANTED) and sum(server.billed.values()) == len(server.billed) == questions > 100
    rng = random.Random(SEED)
    kills = overpaid = unknown = rounds = 0
    while kills < KILLS:
        rounds += 1
        with FaultServer(reply=colour, latency=LATENCY, seed=rounds) as server:
            made = project(tmp_path / f"round-{rounds}", server)
            mine = killed_until_done(driver, made, server, rng, KILLS - kills)
            status, said = driver.run(made, select=WANTED)
            assert status == 0, said
            bill = sum(server.billed.values())
            # Nothing is lost: the very versions of an undisturbed run, and only those.
            seen = made.look()
            assert seen.versions == expected
            assert all(seen.sealed[name] == [version] for name, version in expected.items())
            assert not made.drafts() and not list((made.settings.state / "work").rglob("*.*"))
            # Nothing is paid twice but what was on its way.
            assert len(server.billed) == questions and bill - questions <= mine * IN_FLIGHT
            outcomes = Counter(dict(journal(made, "SELECT outcome, count(*) FROM attempt GROUP BY outcome")))
            assert set(outcomes) <= {"answered", "unknown"} and outcomes["answered"] == questions == answered(made)
            assert outcomes.total() >= bill
            late = "SELECT * FROM attempt JOIN answer USING (key) WHERE attempt.number > answer.attempt"
            assert journal(made, late) == []  # nothing that was answered was asked again
            assert journal(made, "SELECT * FROM lease") == journal(made, "SELECT * FROM holder") == []
            kills, overpaid, unknown = kills + mine, overpaid + bill - questions, unknown + outcomes["unknown"]
    figures = {
        "kills": kills, "rounds": rounds, "questions": rounds * questions, "paid_twice": overpaid,
        "allowed": kills * IN_FLIGHT, "unknown": unknown,
    }  # fmt: skip
    for name, value in figures.items():
        record_property(name, value)
    print(figures)


@pytest.mark.slow
def test_a_second_process_on_a_pipeline_says_who_holds_it(driver, tmp_path: Path) -> None:
    with FaultServer(reply=colour) as server:
        made = project(tmp_path / "project", server)
        server.hold = threading.Event()
        pid = driver.start(made, select=WANTED)
        try:
            while not server.requests and Path(f"/proc/{pid}").exists():
                time.sleep(0.005)
            second = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "distill_dagster.cli",
                    "run",
                    "parcels",
                    "--no-dagster",
                    "--select",
                    "teacher_outputs",
                ],
                env={**os.environ, **made.environment, "COLUMNS": "200"},
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            server.hold.set()
            status = driver.answer()
        said = " ".join((second.stdout + second.stderr).split())
        assert second.returncode == 1 and f"parcels/teacher_outputs: held by process {pid} on" in said, said
        assert "Traceback" not in said
        assert status == 0, (made.folder / "log.txt").read_text("utf-8", "replace")
        assert sum(server.billed.values()) == len(server.billed) == server.requests
        assert set(made.versions()) == {f"parcels/{name}" for name in WANTED}
