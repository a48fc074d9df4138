"""Several processes train one model: the weights of a single one, one writer, and an end for all of them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill_dagster.errors import TrainingError
from distill_dagster.records.messages import from_chat
from distill_dagster.records.tables import build
from distill_dagster.training import metrics
from distill_dagster.training.launch import launch

# Each starts several processes that import torch, which takes long on a busy machine.
pytestmark = [pytest.mark.needs_torch, pytest.mark.slow, pytest.mark.timeout(1200)]

RECIPE = {"steps": 12, "batch_tokens": 256, "learning_rate": 3e-3, "checkpoint_every": 4, "log_every": 2}
SHARED = {**RECIPE, "accumulate": 4}


@pytest.fixture
def task(tokenizer, chats, tmp_path: Path) -> dict:
    rows = [{"origin": "gold", "task": "turn", "split": "train", "messages": from_chat(c.messages)} for c in chats]
    pq.write_table(build("example", rows), tmp_path / "examples.parquet")
    pq.write_table(build("example", rows[:30]), tmp_path / "validation.parquet")
    return {
        "examples": str(tmp_path / "examples.parquet"),
        "validation": str(tmp_path / "validation.parquet"),
        "base": {"preset": "nano", "tokenizer": tokenizer.name_or_path},
        "out": str(tmp_path / "out"),
        "name": "finance/student_checkpoint",
    }


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def near(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (value - other[name]).norm() <= 1e-4 * other[name].norm(), name


def test_two_processes_end_with_the_weights_of_one(task: dict, tmp_path: Path) -> None:
    stop = {"every": 5, "patience": 9}
    single = launch({**task, "recipe": {**SHARED, "early_stop": stop}}, tmp_path / "single")
    (tmp_path / "out").rename(tmp_path / "alone")
    double = launch({**task, "recipe": {**SHARED, "early_stop": stop, "processes": 2}}, tmp_path / "double")
    assert double["processes"] == 2 and "processes" not in single
    near(weights(tmp_path / "out"), weights(tmp_path / "alone"))
    for name in ("steps", "tokens", "answer_tokens", "best_step", "examples"):
        assert double[name] == single[name]
    assert double["validation_loss"] == pytest.approx(single["validation_loss"], rel=1e-4)
    one, two = (metrics.read(tmp_path / name / "metrics.jsonl") for name in ("single", "double"))
    # One writer: each step once, in order.
    assert [row["step"] for row in two] == [row["step"] for row in one] == [1, 2, 4, 5, 6, 8, 10, 12]
    for mine, theirs in zip(two, one, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
        assert mine["tokens"] == theirs["tokens"]


def torchrun(task: dict, work: Path, **env: str) -> subprocess.Popen:
    """As a person starts it by hand."""
    work.mkdir(exist_ok=True)
    (work / "task.json").write_text(json.dumps({**task, "work": str(work)}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    root = str(Path(__file__).resolve().parents[2])
    with (work / "out.txt").open("wb") as output:
        return subprocess.Popen(
            [*command, "distill_dagster.training.process", str(work / "task.json")],
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def workers(parent: int) -> dict[int, int]:
    """Processes by rank below a torchrun."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) != parent:
                continue
            said = dict(p.split("=", 1) for p in (entry / "environ").read_text().split("\0") if "=" in p)
        except (OSError, ValueError):
            continue
        if "RANK" in said:
            found[int(said["RANK"])] = int(entry.name)
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def until(condition, patience: float = 120.0) -> bool:
    deadline = time.monotonic() + patience
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


@pytest.mark.parametrize("victim", [0, 1])
def test_one_killed_ends_all(task: dict, tmp_path: Path, victim: int) -> None:
    # By hand, without anybody who holds its standard input.
    parent = torchrun({**task, "recipe": {**SHARED, "steps": 4000, "processes": 2}}, tmp_path / "work")
    assert until(lambda: list((tmp_path / "work").glob("step-*"))), (tmp_path / "work" / "out.txt").read_text()
    ranks = workers(parent.pid)
    assert sorted(ranks) == [0, 1]
    os.kill(ranks[victim], signal.SIGKILL)
    assert parent.wait(120) != 0
    assert until(lambda: all(gone(pid) for pid in ranks.values()))


def test_a_killed_run_of_two_ends_alike(task: dict, tmp_path: Path) -> None:
    shared = {**task, "recipe": {**SHARED, "processes": 2}}
    whole = launch(shared, tmp_path / "whole")
    wanted = weights(tmp_path / "out")
    # The first process dies while it writes its second checkpoint.
    with pytest.raises(TrainingError, match="left no result|another process of this run was lost"):
        launch(shared, tmp_path / "two", env={"DISTILL_FAULT_AT": "9"})
    again = launch(shared, tmp_path / "two")
    assert again["resumed_from"] == 4
    found = weights(tmp_path / "out")
    assert all(value.equal(wanted[name]) for name, value in found.items())
    rows = [metrics.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "two")]
    assert [(r["step"], r["loss"]) for r in rows[0]] == [(r["step"], r["loss"]) for r in rows[1]]
    assert again["loss"] == whole["loss"]


def test_workers_do_not_outlive_torchrun(task: dict, tmp_path: Path) -> None:
    parent = torchrun({**task, "recipe": {**SHARED, "steps": 4000, "processes": 2}}, tmp_path / "work")
    assert until(lambda: list((tmp_path / "work").glob("step-*"))), (tmp_path / "work" / "out.txt").read_text()
    ranks = workers(parent.pid)
    parent.kill()
    parent.wait(60)
    assert until(lambda: all(gone(pid) for pid in ranks.values()))


def test_what_goes_wrong_in_any_of_them_is_told(task: dict, tmp_path: Path) -> None:
    hot = {**SHARED, "learning_rate": 1e30, "warmup_steps": 0, "processes": 2}
    with pytest.raises(TrainingError, match="not finite") as caught:
        launch({**task, "recipe": hot}, tmp_path / "hot")
    assert "; records " in caught.value.reason
    parent = torchrun({**task, "recipe": RECIPE}, tmp_path / "uneven")
    assert parent.wait(120) != 0
    said = json.loads((tmp_path / "uneven" / "result.json").read_text())
    assert "2 processes cannot share the 1 batches" in said["reason"]
