"""A process that asks a server is killed again and again: at most what was in flight is paid twice, nothing is lost.

The oracle is the server's own bill and the journal's file.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fault_server import FaultServer

WORKER = Path(__file__).with_name("openai_worker.py")


def rows(path, query):
    database = sqlite3.connect(path)
    try:
        return database.execute(query).fetchall()
    except sqlite3.OperationalError:  # killed before the tables were made
        return []
    finally:
        database.close()


def killed_while_asking(folder, kills, count, most, seed, faults=None):
    journal, answers, rng = folder / "j.sqlite", folder / "answers.json", random.Random(seed)
    with FaultServer(faults, seed=seed, latency=0.03) as server:

        def start():
            arguments = [str(journal), server.url, str(answers), str(count), str(most)]
            process = subprocess.Popen([sys.executable, str(WORKER), *arguments], stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            return process

        for _ in range(kills):
            process = start()
            before, paid = server.requests, dict(server.billed)
            known = {text.removeprefix("answer to ") for (text,) in rows(journal, "SELECT text FROM answer")}
            while server.requests == before and process.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0.0, 0.25))
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=20)
            assert all(server.billed[text] == paid[text] for text in known)
        process = start()
        process.communicate(timeout=120)
        assert process.returncode == 0
        assert json.loads(answers.read_text()) == [f"answer to question {at}" for at in range(count)]
        outcomes = dict(rows(journal, "SELECT outcome, count(*) FROM attempt GROUP BY outcome"))
        assert outcomes["answered"] == count and sum(outcomes.values()) >= server.requests
        assert rows(journal, "SELECT * FROM lease") == rows(journal, "SELECT * FROM holder") == []
        if not faults:
            assert set(outcomes) <= {"answered", "unknown"}
            assert sum(server.billed.values()) - count <= kills * most


@pytest.mark.kill
def test_killed_while_asking(tmp_path):
    killed_while_asking(tmp_path, kills=3, count=250, most=8, seed=3)


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_waits_for_what_is_on_the_wire_and_a_second_one_does_not(tmp_path, signals):
    journal = tmp_path / "j.sqlite"
    with FaultServer() as server:
        arguments = [str(journal), server.url, str(tmp_path / "answers.json"), "100", "8"]
        process = subprocess.Popen(
            [sys.executable, str(WORKER), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while server.requests < 20 and process.poll() is None:
            time.sleep(0.002)
        server.hold = threading.Event()
        while server.in_flight < 8 and process.poll() is None:
            time.sleep(0.002)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert process.poll() is None  # it waits
        if signals == 2:
            process.send_signal(signal.SIGINT)
        else:
            server.hold.set()
        _, said = process.communicate(timeout=20)
        assert process.returncode != 0 and "KeyboardInterrupt" in said and time.monotonic() - start < 4.5
        outcomes = dict(rows(journal, "SELECT outcome, count(*) FROM attempt GROUP BY outcome"))
        assert outcomes["answered"] == sum(server.billed.values()) and outcomes.get("unknown", 0) == 8 * (signals - 1)
        assert rows(journal, "SELECT * FROM lease") == rows(journal, "SELECT * FROM holder") == []


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 5])
def test_killed_many_times_while_asking(tmp_path, seed):
    faults = {"429": 0.05, "500": 0.05, "reset_after": 0.05} if seed == 5 else None
    killed_while_asking(tmp_path, kills=20, count=1500, most=16, seed=seed, faults=faults)
